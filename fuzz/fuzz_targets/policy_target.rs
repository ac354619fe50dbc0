//! The libFuzzer entry point of [`cloister_fuzz::policy::target`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::policy::target(data));
