//! The fuzz targets: one function for each parser of untrusted bytes.
//!
//! Invariant: a target panics on a finding and on nothing else, and gives the same result for the same bytes every time. It
//! checks more than the absence of panics: data that was read is written and read again, and bounds hold.
//!
//! [`TARGETS`] is the only list. `fuzz_targets/` passes each function to libFuzzer; `brief` runs all of them for a bounded
//! time without it.
#![forbid(unsafe_code)]

pub mod eif;
pub mod evidence;
pub mod hardware;
pub mod image;
pub mod manifest;
pub mod mutate;
pub mod nsm;
pub mod nts;
pub mod policy;
pub mod registry;
pub mod snp;
pub mod wire;

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its libFuzzer program and of its directory in `corpus/`.
    pub name: &'static str,
    /// Runs it on one input.
    pub run: fn(&[u8]),
    /// Directories with further seeds, from the project's root.
    pub seeds: &'static [&'static str],
}

/// Every target.
pub const TARGETS: [Target; 34] = [
    Target { name: "wire_frames", run: wire::frames, seeds: &[] },
    Target { name: "wire_chunks", run: wire::chunks, seeds: &[] },
    Target { name: "wire_records", run: wire::records, seeds: &[] },
    Target { name: "wire_statuses", run: wire::statuses, seeds: &[] },
    Target { name: "wire_requests", run: wire::requests, seeds: &[] },
    Target { name: "wire_messages", run: wire::messages, seeds: &[] },
    Target {
        name: "manifest_source",
        run: manifest::source,
        seeds: &[
            "crates/manifest/testdata",
            "crates/manifest/testdata/bad",
            "examples/hello",
            "examples/nginx",
            "examples/redis",
            "examples/python",
        ],
    },
    Target { name: "manifest_model", run: manifest::model, seeds: &["crates/manifest/testdata"] },
    Target { name: "image_layer", run: image::layer, seeds: &[] },
    Target { name: "image_archive", run: image::archive, seeds: &[] },
    Target { name: "image_documents", run: image::documents, seeds: &[] },
    Target { name: "image_rpm", run: image::rpm, seeds: &["crates/image/testdata"] },
    Target { name: "image_rpm_bdb", run: image::rpm_bdb, seeds: &["crates/image/testdata"] },
    Target { name: "image_rpm_ndb", run: image::rpm_ndb, seeds: &["crates/image/testdata"] },
    Target { name: "image_cpio", run: image::cpio, seeds: &[] },
    Target { name: "eif", run: eif::file, seeds: &[] },
    Target { name: "evidence_nitro", run: evidence::nitro, seeds: &["crates/evidence/testdata/nitro"] },
    Target { name: "evidence_certificate", run: evidence::certificate, seeds: &[] },
    Target { name: "evidence_log", run: evidence::log, seeds: &[] },
    Target { name: "evidence_measurements", run: evidence::measurements, seeds: &[] },
    Target { name: "nsm_answer", run: nsm::answer, seeds: &[] },
    Target { name: "nsm_request", run: nsm::request, seeds: &[] },
    Target { name: "nts_exchange", run: nts::exchange, seeds: &[] },
    Target { name: "nts_answer", run: nts::answer, seeds: &[] },
    Target {
        name: "snp_report",
        run: hardware::snp_report,
        seeds: &["crates/evidence/testdata/snp/recorded"],
    },
    Target {
        name: "snp_chain_certificate",
        run: hardware::snp_chain_certificate,
        seeds: &["crates/evidence/testdata/snp/recorded", "crates/evidence/testdata/snp/synthetic"],
    },
    Target { name: "snp_crl", run: hardware::snp_crl, seeds: &["crates/evidence/testdata/snp/synthetic"] },
    Target { name: "snp_chain", run: hardware::snp_chain, seeds: &["crates/evidence/testdata/snp/recorded"] },
    Target { name: "tdx_quote", run: hardware::tdx_quote, seeds: &["crates/evidence/testdata/tdx/recorded"] },
    Target {
        name: "tdx_collateral",
        run: hardware::tdx_collateral,
        seeds: &["crates/evidence/testdata/tdx/recorded"],
    },
    Target { name: "tdx_answer", run: hardware::tdx_answer, seeds: &[] },
    Target { name: "registry_challenge", run: registry::challenge, seeds: &[] },
    Target { name: "snp_certificates", run: snp::certificates, seeds: &[] },
    Target { name: "policy_target", run: policy::target, seeds: &[] },
];
