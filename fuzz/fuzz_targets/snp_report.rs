//! The libFuzzer entry point of [`cloister_fuzz::hardware::snp_report`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::hardware::snp_report(data));
