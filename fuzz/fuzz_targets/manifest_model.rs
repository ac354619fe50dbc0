//! The libFuzzer entry point of [`cloister_fuzz::manifest::model`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::manifest::model(data));
