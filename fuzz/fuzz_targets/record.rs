#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use tagflow::mutations::record;

fuzz_target!(
    init: { tagflow_fuzz::let_panics_be_caught() },
    |input: &[u8]| {
        record(input);
    }
);

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    tagflow_fuzz::mutate(data, size, max_size, seed, |mutator, input| mutator.behind_first(input, input))
});
