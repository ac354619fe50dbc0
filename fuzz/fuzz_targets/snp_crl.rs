//! The libFuzzer entry point of [`cloister_fuzz::hardware::snp_crl`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::hardware::snp_crl(data));
