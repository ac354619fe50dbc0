//! The libFuzzer entry point of [`cloister_fuzz::snp::certificates`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::snp::certificates(data));
