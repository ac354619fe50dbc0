//! The libFuzzer entry point of [`cloister_fuzz::manifest::source`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::manifest::source(data));
