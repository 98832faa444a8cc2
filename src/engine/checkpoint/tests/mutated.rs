//! Checkpoints whose files were changed by chance or by somebody.

use super::*;
use crate::mutations::Mutator;

/// `TAGFLOW_MUTATIONS` runs that many.
fn rounds() -> usize {
    std::env::var("TAGFLOW_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
}

/// Two checkpoints that share files.
fn sound() -> (BTreeMap<String, Vec<u8>>, BTreeMap<u64, Tables>) {
    let (memory, checkpoints) = in_memory();
    let mut writer = writer(&checkpoints);
    let many: Vec<(i64, i64)> = (0..500).map(|key| (key, key)).collect();
    let mut states = BTreeMap::new();
    save(&mut writer, 1, vec![whole("a", &many), whole("b", &[(1, 1)])]);
    for epoch in 2..6 {
        let (key, value) = (epoch as i64, epoch as i64 * 100);
        let a = changes("a", &[(key, value)], &[key + 100], Some(epoch as i64 - 1));
        save(&mut writer, epoch, vec![a, changes("b", &[(key, value)], &[], None)]);
        states.insert(epoch, latest(&checkpoints).0.unwrap().1);
    }
    let files = memory.files.lock().unwrap().clone();
    (files, states)
}

fn place_of(files: BTreeMap<String, Vec<u8>>) -> Checkpoints {
    Checkpoints::at(Arc::new(Memory { files: Mutex::new(files), ..Memory::default() }))
}

/// Changes one file, takes it away, or puts another in its place.
fn mutate(files: &mut BTreeMap<String, Vec<u8>>, mutator: &mut Mutator) {
    let names: Vec<String> = files.keys().cloned().collect();
    if names.is_empty() {
        return;
    }
    let (name, other) = (mutator.one_of(&names), files[mutator.one_of(&names)].clone());
    match files.get_mut(name) {
        Some(bytes) if !mutator.once_in(6) => mutator.bytes(bytes, &other),
        Some(bytes) if mutator.once_in(2) => *bytes = other,
        _ => drop(files.remove(name)),
    }
}

#[test]
fn mutated_checkpoints_are_told_of_and_never_misread() {
    let (files, states) = sound();
    let mut mutator = Mutator::new(5);
    let mut skipped_some = 0;
    for round in 0..rounds() {
        let mut files = files.clone();
        mutate(&mut files, &mut mutator);
        while mutator.once_in(2) {
            mutate(&mut files, &mut mutator);
        }
        let checkpoints = place_of(files);
        let (found, skipped) = latest(&checkpoints);
        skipped_some += usize::from(!skipped.is_empty());
        assert!(skipped.iter().all(|message| message.starts_with("memory/")), "round {round}: {skipped:?}");
        if let Some((epoch, tables)) = found {
            assert!(tables == states[&epoch], "round {round}: epoch {epoch} was misread");
        }
        // A daemon goes on from there, over whatever lies about.
        let mut writer = Writer::open(checkpoints.clone(), KEEPING, BTreeMap::new()).unwrap();
        save(&mut writer, 9, vec![whole("a", &[(1, 9)])]);
        assert_eq!(latest(&checkpoints).0.unwrap().0, 9);
    }
    assert!(skipped_some > rounds() / 4, "{skipped_some}");
}

#[test]
fn manifests_with_a_right_checksum_over_wrong_words_do_no_harm() {
    let (files, _) = sound();
    let name = manifest_name(5);
    let body = files[&name].splitn(2, |byte| *byte == b'\n').nth(1).unwrap().to_vec();
    let mut random = StdRng::seed_from_u64(6);
    for _ in 0..rounds() {
        let mut body = body.clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..body.len());
            body[at] = b"0123456789{}[]\",:-.eE/"[random.random_range(0..22)];
        }
        let head = format!("tagflow-checkpoint {VERSION} {} {:08x}\n", body.len(), crc32fast::hash(&body));
        let mut files = files.clone();
        files.insert(name.clone(), [head.as_bytes(), &body].concat());
        let checkpoints = place_of(files);
        assert!(newest(&checkpoints).0.is_some_and(|(epoch, _)| [4, 5].contains(&epoch)));
    }
}
