//! The libFuzzer entry point of [`cloister_fuzz::eif::file`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::eif::file(data));
