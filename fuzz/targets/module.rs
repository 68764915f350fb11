#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|bytes: &[u8]| rpw_fuzz::run("module", bytes));

// Bytes of a module that are changed blindly are mostly no module; now and then a new one takes their place.
fuzz_mutator!(|bytes: &mut [u8], size: usize, most: usize, seed: u32| {
    const NEW_ONE_IN: u32 = 8;
    if seed % NEW_ONE_IN == 0
        && let Some(module) = rpw_fuzz::smith::module(seed)
        && module.len() <= most
    {
        bytes[..module.len()].copy_from_slice(&module);
        return module.len();
    }
    fuzzer_mutate(bytes, size, most)
});
