#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rpw_fuzz::run("scenario", bytes));
