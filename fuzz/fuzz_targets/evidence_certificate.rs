//! The libFuzzer entry point of [`cloister_fuzz::evidence::certificate`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::evidence::certificate(data));
