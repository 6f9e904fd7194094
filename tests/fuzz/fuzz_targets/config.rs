#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vidente_fuzz::config(bytes));
