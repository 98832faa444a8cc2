//! What the fuzz targets share: libFuzzer's own changes and those of tagflow's mutator take turns.

use libfuzzer_sys::fuzzer_mutate;
use tagflow::mutations::Mutator;

/// Changes the first `size` bytes of `data` by `change`, or as libFuzzer would; the new size.
pub fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    change: fn(&mut Mutator, &[u8]) -> Vec<u8>,
) -> usize {
    if seed.is_multiple_of(2) {
        return fuzzer_mutate(data, size, max_size);
    }
    let changed = change(&mut Mutator::new(seed.into()), &data[..size]);
    let size = changed.len().min(max_size);
    data[..size].copy_from_slice(&changed[..size]);
    size
}

/// For `fuzz_target!`: panics that are caught are no crashes, so they must not end the process at once.
pub fn let_panics_be_caught() {
    drop(std::panic::take_hook());
}
