//! Letters as they are written, read, taken out and met again.

use std::path::Path;
use std::sync::Arc;

use super::*;

fn letters_in(dir: &Path) -> DeadLetters {
    DeadLetters::new(dir, 1 << 20, Arc::new(|| 1_700_000_000_000))
}

fn record(partition: i32, offset: i64, payload: &[u8]) -> RawRecord<'_> {
    RawRecord { topic: "shop.orders", partition, offset, timestamp: Some(5), key: None, payload: Some(payload) }
}

fn error() -> DecodeError {
    DecodeError("column \"amount\": expected DECIMAL(12,2), found \"abc\"".into())
}

fn offsets(letters: &DeadLetters) -> Vec<i64> {
    letters.read("orders").unwrap().iter().map(|letter| letter.offset).collect()
}

fn count(letters: &DeadLetters) -> DeadLetterCount {
    letters.counts([]).remove("orders").unwrap()
}

#[test]
fn letter_keeps_place_error_and_raw_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let letters = letters_in(&dir.path().join("dead-letters"));
    letters.put("orders", &record(2, 17, "{\"amount\":\"中\"}".as_bytes()), &error());
    letters.put("orders", &RawRecord { key: Some(b"\xfe"), ..record(2, 18, b"\xff\x00") }, &error());
    letters.flush("orders");
    let text = fs::read_to_string(dir.path().join("dead-letters/orders.jsonl")).unwrap();
    assert_eq!(
        text.lines().next().unwrap(),
        r#"{"kind":"decode","stream":"orders","topic":"shop.orders","partition":2,"offset":17,"timestamp":5,"error":"column \"amount\": expected DECIMAL(12,2), found \"abc\"","raw":"{\"amount\":\"中\"}","at":1700000000000}"#
    );
    let read = letters.read("orders").unwrap();
    assert_eq!((read[1].raw_base64.as_deref(), read[1].key_base64.as_deref()), (Some("/wA="), Some("/g==")));
    let expected = DeadLetterCount { put: 2, kept: 2, newest_at: Some(1_700_000_000_000), ..Default::default() };
    assert_eq!(count(&letters), expected);
}

#[test]
fn replayed_record_is_written_once_even_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let letters = letters_in(dir.path());
        for offset in [9, 3, 9] {
            letters.put("orders", &record(0, offset, b"x"), &error());
        }
        letters.put("orders", &record(1, 9, b"x"), &error());
        assert_eq!(letters.read("orders").unwrap().len(), 3);
    }
}

#[test]
fn record_of_a_topic_that_was_made_again_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let letters = letters_in(dir.path());
    letters.put("orders", &record(0, 9, b"x"), &error());
    letters.put("orders", &RawRecord { timestamp: Some(6), ..record(0, 9, b"x") }, &error());
    letters.put_late("orders", &record(0, 9, b"x"), &["visits"], "late");
    assert_eq!(offsets(&letters), [9, 9, 9]);
    assert_eq!((count(&letters).put, count(&letters).late), (3, 1));
}

#[test]
fn nulls_of_a_record_that_is_read_again_count_once() {
    let dir = tempfile::tempdir().unwrap();
    let letters = letters_in(dir.path());
    let partition = |number| Partition { stream: "orders".into(), number };
    for (number, offset) in [(0, 7), (0, 9), (1, 3), (0, 7), (0, 9), (0, 10)] {
        letters.count_nulls(&partition(number), offset, 2);
    }
    assert_eq!(count(&letters), DeadLetterCount { nulls: 8, ..Default::default() });
}

#[test]
fn line_cut_by_a_crash_harms_no_other() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("orders.jsonl"), "{\"stream\":\"ord").unwrap();
    let letters = letters_in(dir.path());
    letters.put("orders", &record(0, 1, b"x"), &error());
    assert_eq!(offsets(&letters), [1]);
}

#[test]
fn oldest_letters_go_for_newer_ones_are_counted_and_do_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let letters = DeadLetters { most_bytes: 4000, ..letters_in(dir.path()) };
    let put_all = |letters: &DeadLetters| {
        for offset in 0..100 {
            letters.put("orders", &record(0, offset, b"x"), &error());
            if offset % 7 == 0 {
                letters.flush("orders");
            }
        }
    };
    put_all(&letters);
    let kept = offsets(&letters);
    assert_eq!(kept.last(), Some(&99));
    assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{kept:?}");
    let bytes = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len();
    assert!(bytes("orders.jsonl") <= 2000 && bytes("orders.1.jsonl") <= 2000);
    let counted = count(&letters);
    assert_eq!((counted.put, counted.dropped, counted.kept), (100, 100 - kept.len() as u64, kept.len() as u64));
    // A fill reads the same records, in this process and in the next.
    put_all(&letters);
    assert_eq!((offsets(&letters), count(&letters).put), (kept.clone(), 100));
    let again = DeadLetters { most_bytes: 4000, ..letters_in(dir.path()) };
    put_all(&again);
    assert_eq!((offsets(&again), count(&again).put), (kept, 0));
}

#[test]
fn letters_taken_out_under_the_one_who_writes_stay_away_unless_they_may_return() {
    let dir = tempfile::tempdir().unwrap();
    let letters = letters_in(dir.path());
    let put_all = || (0..4).for_each(|offset| letters.put("orders", &record(0, offset, b"x"), &error()));
    put_all();
    letters.flush("orders");
    let files = LetterFiles::of(dir.path(), "orders");
    assert_eq!(files.take_out(|letter| letter.offset == 1, false).unwrap(), 1);
    assert_eq!(files.take_out(|letter| letter.offset == 2, true).unwrap(), 1);
    assert_eq!(files.take_out(|letter| letter.offset == 2, true).unwrap(), 0);
    assert_eq!(count(&letters).kept, 2);
    put_all();
    assert_eq!(offsets(&letters), [0, 3, 2]);
    assert_eq!(LetterFiles::streams(dir.path()).unwrap(), ["orders"]);
}

#[test]
fn long_records_and_keys_are_cut_between_characters() {
    let dir = tempfile::tempdir().unwrap();
    let letters = DeadLetters { most_bytes: 100 * RECORD_SHARE, ..letters_in(dir.path()) };
    let (text, bytes, key) = ("x".repeat(99) + "中文", vec![0xff; 104], [b'k'; 101]);
    letters.put("orders", &record(0, 1, text.as_bytes()), &error());
    letters.put("orders", &record(0, 2, &bytes), &error());
    letters.put("orders", &RawRecord { key: Some(&key), ..record(0, 3, b"whole") }, &error());
    let read = letters.read("orders").unwrap();
    let cut: Vec<_> = read.iter().map(|letter| letter.cut_from).collect();
    assert_eq!(cut, [Some(105), Some(104), Some(5)]);
    assert_eq!(read[0].raw.as_deref(), Some("x".repeat(99).as_str()));
    assert_eq!(read[1].raw_base64.as_ref().map(String::len), Some(136));
    assert_eq!((read[2].raw.as_deref(), read[2].key.as_ref().map(String::len)), (Some("whole"), Some(100)));
}

#[test]
fn record_of_nothing_but_control_characters_stays_within_the_room() {
    let dir = tempfile::tempdir().unwrap();
    let letters = letters_in(dir.path());
    let nothing = vec![0; 1 << 20];
    for offset in 0..20 {
        letters.put("orders", &RawRecord { key: Some(&nothing), ..record(0, offset, &nothing) }, &error());
    }
    letters.flush("orders");
    let (previous, current) = LetterFiles::of(dir.path(), "orders").lengths().unwrap();
    assert!(previous + current <= 1 << 20, "{previous} and {current}");
}

#[test]
fn letters_that_cannot_be_written_are_counted_and_put_when_their_records_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("dead-letters");
    fs::write(&place, "in the way").unwrap();
    let letters = letters_in(&place);
    letters.put("orders", &record(0, 1, b"x"), &error());
    letters.flush("orders");
    assert_eq!((count(&letters).lost, count(&letters).kept), (1, 0));
    fs::remove_file(&place).unwrap();
    letters.put("orders", &record(0, 1, b"x"), &error());
    assert_eq!(offsets(&letters), [1]);
}
