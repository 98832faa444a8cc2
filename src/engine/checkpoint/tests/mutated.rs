//! Checkpoints whose files were changed by chance or by somebody.

use super::*;

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

/// Changes one file, or exchanges two.
fn mutate(files: &mut BTreeMap<String, Vec<u8>>, random: &mut StdRng) {
    let names: Vec<String> = files.keys().cloned().collect();
    let name = &names[random.random_range(0..names.len())];
    let other = files[&names[random.random_range(0..names.len())]].clone();
    let Some(bytes) = files.get_mut(name) else { return };
    let at = random.random_range(0..bytes.len().max(1));
    match random.random_range(0..7) {
        0 => bytes.truncate(at),
        1 => bytes.extend_from_slice(&other),
        2 => *bytes = other,
        3 => drop(files.remove(name)),
        4 => {
            // A length that nothing has.
            let huge = [u64::MAX, 1 << 62, 1 << 40, u64::from(u32::MAX)][random.random_range(0..4)].to_le_bytes();
            bytes.iter_mut().skip(at).zip(huge).for_each(|(byte, huge)| *byte = huge);
        }
        5 => {
            let end = random.random_range(at..=bytes.len());
            drop(bytes.drain(at..end));
        }
        _ => {
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len().max(1));
                bytes[at] ^= 1 << random.random_range(0..8);
            }
        }
    }
}

#[test]
fn mutated_checkpoints_are_told_of_and_never_misread() {
    let (files, states) = sound();
    let mut random = StdRng::seed_from_u64(5);
    let mut skipped_some = 0;
    for round in 0..rounds() {
        let mut files = files.clone();
        for _ in 0..random.random_range(1..4) {
            mutate(&mut files, &mut random);
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
        let (found, _) = checkpoints.latest().unwrap();
        assert!(found.is_some_and(|(manifest, _)| [4, 5].contains(&manifest.position.epoch)));
    }
}

#[test]
fn segments_with_a_right_checksum_over_wrong_bytes_are_errors() {
    let (files, _) = sound();
    let segments: Vec<&Vec<u8>> =
        files.iter().filter(|(name, _)| name.starts_with(SEGMENTS)).map(|(_, file)| file).collect();
    let mut random = StdRng::seed_from_u64(7);
    let mut refused = 0;
    for round in 0..rounds() {
        let mut one = BTreeMap::from([("a".to_string(), segments[round % segments.len()].clone())]);
        mutate(&mut one, &mut random);
        refused += usize::from(one.get("a").is_some_and(|bytes| segment::decode(bytes).is_err()));
    }
    assert!(refused > rounds() / 4, "{refused}");
}
