//! The libFuzzer entry point of [`cloister_fuzz::registry::challenge`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::registry::challenge(data));
