//! The libFuzzer entry point of [`cloister_fuzz::nts::answer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::nts::answer(data));
