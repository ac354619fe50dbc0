//! Quotes and collateral signed under the test root, for the states that no recorded quote has.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dcap_qvl::QuoteCollateralV3;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use sha2::{Digest, Sha256};
use x509_cert::der::{Decode, Encode};

use super::super::{Collateral, TcbStatus};
use super::{Case, accepting};
use crate::tests::read;

/// A time at which the generated certificates are valid, 2027-01-15.
pub(super) const GENERATED: u64 = 1_800_000_000;

pub(super) fn data(name: &str) -> Vec<u8> {
    read("tdx/synthetic", name)
}

fn text(name: &str) -> String {
    String::from_utf8(data(name)).unwrap()
}

fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    let signature: Signature = SigningKey::from_slice(key).unwrap().sign(message);
    signature.to_bytes().to_vec()
}

/// What a generated quote consists of. Each field can be changed before it is signed.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) version: u16,
    pub(super) body: Vec<u8>,
    pub(super) qe_report: Vec<u8>,
    pub(super) chain: Vec<u8>,
    pub(super) tcb_info: String,
    pub(super) qe_identity: String,
    pub(super) signer_chain: String,
    pub(super) root_crl: Vec<u8>,
    pub(super) pck_crl: Vec<u8>,
}

/// The private number of the attestation key, which a quoting enclave draws itself.
const ATTESTATION_KEY: [u8; 32] = [7; 32];
/// The offset of the attributes in a body.
pub(super) const ATTRIBUTES: usize = 120;
/// The offset of the service TDs' measurement in a body of TDX 1.5.
const SERVICE_TD: usize = 600;

impl Parts {
    /// A platform that is up to date. `body_type` as in version 5; version 4 for 2.
    pub(super) fn new(body_type: u16) -> Self {
        Self {
            version: if body_type == 2 { 4 } else { 5 },
            body: body(body_type),
            qe_report: qe_report(),
            chain: data("pck-chain.pem"),
            tcb_info: tcb_info("UpToDate", "[]"),
            qe_identity: qe_identity("UpToDate"),
            signer_chain: text("signer-chain.pem"),
            root_crl: data("root.crl"),
            pck_crl: data("pck.crl"),
        }
    }

    pub(super) fn build(&self) -> Case {
        let signer = data("signer-test-key.bin");
        let collateral = Collateral::new(QuoteCollateralV3 {
            pck_crl_issuer_chain: text("signer-chain.pem"),
            root_ca_crl: self.root_crl.clone(),
            pck_crl: self.pck_crl.clone(),
            tcb_info_issuer_chain: self.signer_chain.clone(),
            tcb_info_signature: sign(&signer, self.tcb_info.as_bytes()),
            tcb_info: self.tcb_info.clone(),
            qe_identity_issuer_chain: self.signer_chain.clone(),
            qe_identity_signature: sign(&signer, self.qe_identity.as_bytes()),
            qe_identity: self.qe_identity.clone(),
            pck_certificate_chain: None,
        });
        let root = data("root.der");
        let certificate = x509_cert::Certificate::from_der(&root).unwrap();
        let key = certificate.tbs_certificate().subject_public_key_info().to_der().unwrap();
        let quote = self.quote();
        Case {
            policy: accepting(&quote),
            quote,
            collateral,
            root,
            key_sha256: Sha256::digest(key).into(),
            now: GENERATED,
        }
    }

    fn quote(&self) -> Vec<u8> {
        let mut signed = header(self.version);
        if self.version == 5 {
            let body_type: u16 = if self.body.len() == 648 { 3 } else { 4 };
            signed.extend(body_type.to_le_bytes());
            signed.extend(u32::try_from(self.body.len()).unwrap().to_le_bytes());
        }
        signed.extend(&self.body);
        let mut certified = self.qe_report.clone();
        certified.extend(sign(&data("pck-test-key.bin"), &self.qe_report));
        certified.extend(32_u16.to_le_bytes());
        certified.extend([9; 32]);
        certified.extend(certification(5, &self.chain));
        let mut signature = sign(&ATTESTATION_KEY, &signed);
        signature.extend(attestation_key());
        signature.extend(certification(6, &certified));
        signed.extend(u32::try_from(signature.len()).unwrap().to_le_bytes());
        signed.extend(signature);
        signed
    }
}

fn certification(number: u16, bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap();
    [number.to_le_bytes().as_slice(), &len.to_le_bytes(), bytes].concat()
}

/// The public attestation key, without the byte that says that it is not compressed.
fn attestation_key() -> Vec<u8> {
    let key = SigningKey::from_slice(&ATTESTATION_KEY).unwrap();
    key.verifying_key().to_sec1_point(false).as_bytes()[1..].to_vec()
}

fn header(version: u16) -> Vec<u8> {
    let mut header = Vec::from(version.to_le_bytes());
    header.extend(2_u16.to_le_bytes());
    header.extend(0x81_u32.to_le_bytes());
    header.extend([0; 4]);
    header.extend([
        0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07,
    ]);
    header.extend([0; 20]);
    header
}

fn body(body_type: u16) -> Vec<u8> {
    let mut body = alloc::vec![0; if body_type == 2 { 584 } else { 648 }];
    body[..3].copy_from_slice(&[3, 0, 5]);
    body[ATTRIBUTES..ATTRIBUTES + 8].copy_from_slice(&0x1000_0000_u64.to_le_bytes());
    // MRTD, three identifiers, four registers: a different byte for each.
    for (value, register) in (1..).zip(body[136..520].chunks_mut(48)) {
        register.fill(value);
    }
    body[520..584].fill(0x77);
    if body_type == 3 {
        body[584..587].copy_from_slice(&[3, 0, 5]);
    }
    body
}

fn qe_report() -> Vec<u8> {
    let mut report = alloc::vec![0; 384];
    report[48] = 0x11;
    report[128..160].fill(0x8c);
    report[256..258].copy_from_slice(&2_u16.to_le_bytes());
    report[258..260].copy_from_slice(&4_u16.to_le_bytes());
    let digest = Sha256::digest([attestation_key().as_slice(), &[9; 32]].concat());
    report[320..352].copy_from_slice(&digest);
    report
}

fn repeated(value: &str, count: usize) -> String {
    alloc::vec![value; count].join(",")
}

/// TCB info with one level for current platforms and one for older ones.
pub(super) fn tcb_info(status: &str, advisories: &str) -> String {
    let level = |svn: u8, pce: u16, status: &str, advisories: &str| {
        let sgx = repeated(&format!("{{\"svn\":{svn}}}"), 16);
        let tdx = repeated("{\"svn\":0}", 13);
        format!(
            "{{\"tcb\":{{\"sgxtcbcomponents\":[{sgx}],\"pcesvn\":{pce},\"tdxtcbcomponents\":[{{\"svn\":3}},{{\"svn\":0}},\
             {{\"svn\":5}},{tdx}]}},\"tcbDate\":\"2026-03-11T00:00:00Z\",\"tcbStatus\":\"{status}\",\"advisoryIDs\":{advisories}}}"
        )
    };
    format!(
        "{{\"id\":\"TDX\",\"version\":3,\"issueDate\":\"2027-01-01T00:00:00Z\",\"nextUpdate\":\"2027-01-31T00:00:00Z\",\
         \"fmspc\":\"C0C06F000000\",\"pceId\":\"0000\",\"tcbType\":0,\"tcbEvaluationDataNumber\":20,\"tdxModule\":{{\
         \"mrsigner\":\"{}\",\"attributes\":\"0000000000000000\",\"attributesMask\":\"FFFFFFFFFFFFFFFF\"}},\
         \"tcbLevels\":[{},{}]}}",
        "00".repeat(48),
        level(5, 13, status, advisories),
        level(1, 5, "OutOfDate", "[\"INTEL-SA-00615\"]"),
    )
}

pub(super) fn qe_identity(status: &str) -> String {
    format!(
        "{{\"id\":\"TD_QE\",\"version\":2,\"issueDate\":\"2027-01-02T00:00:00Z\",\"nextUpdate\":\"2027-02-01T00:00:00Z\",\
         \"tcbEvaluationDataNumber\":21,\"miscselect\":\"00000000\",\"miscselectMask\":\"FFFFFFFF\",\
         \"attributes\":\"11000000000000000000000000000000\",\"attributesMask\":\"FBFFFFFFFFFFFFFF0000000000000000\",\
         \"mrsigner\":\"{}\",\"isvprodid\":2,\"tcbLevels\":[{{\"tcb\":{{\"isvsvn\":4}},\
         \"tcbDate\":\"2026-03-11T00:00:00Z\",\"tcbStatus\":\"{status}\"}}]}}",
        "8C".repeat(32),
    )
}

#[test]
fn a_generated_quote_of_each_form_verifies() {
    for body_type in [2, 3] {
        let verified = Parts::new(body_type).build().accept();
        let guest = verified.value();
        assert_eq!((guest.status, guest.evaluation), (TcbStatus::UpToDate, 20));
        assert_eq!(guest.fmspc, [0xc0, 0xc0, 0x6f, 0, 0, 0]);
        assert_eq!(guest.collateral_until, 1_801_353_600);
        let report = &guest.report;
        assert_eq!(
            (report.mr_td, report.mr_config_id, report.mr_owner, report.mr_owner_config),
            ([1; 48], [2; 48], [3; 48], [4; 48])
        );
        assert_eq!(report.rtmr, [[5; 48], [6; 48], [7; 48], [8; 48]]);
        assert_eq!(report.td15.is_some(), body_type == 3);
    }
}

#[test]
fn a_td_under_debug_is_refused_although_its_signature_holds() {
    for bit in 0..8 {
        let mut parts = Parts::new(2);
        parts.body[ATTRIBUTES] |= 1 << bit;
        parts.build().refuse("debug", "the TD is under debug");
    }
}

#[test]
fn attributes_that_weaken_a_td_are_refused() {
    let with = |attributes: u64| {
        let mut parts = Parts::new(2);
        parts.body[ATTRIBUTES..ATTRIBUTES + 8].copy_from_slice(&attributes.to_le_bytes());
        parts.build()
    };
    with(0x3000_0000).refuse("attributes", "MIGRATABLE must be clear");
    with(0).refuse("attributes", "SEPT_VE_DISABLE must be set");
    with(0x1000_0000 | 1 << 40).refuse("signatures", "Reserved bits in TD attributes are set");
    with(0x1000_0000 | 1 << 17).refuse("signatures", "SERVTD_EXT is enabled");
    let mut case = with(0x1000_0000 | 1 << 63);
    case.accept();
    case.policy.attributes_clear = super::super::Attributes::PERFMON;
    case.refuse("attributes", "PERFMON must be clear");
}

#[test]
fn a_td_with_a_service_td_is_refused() {
    let mut parts = Parts::new(3);
    parts.body[SERVICE_TD] = 1;
    parts.build().refuse("signatures", "Invalid MR service TD");
}

#[test]
fn a_quoting_enclave_under_debug_or_of_another_signer_is_refused() {
    let mut parts = Parts::new(2);
    parts.qe_report[48] |= 2;
    parts.build().refuse("signatures", "Debug mode is enabled");
    let mut parts = Parts::new(2);
    parts.qe_report[128] ^= 1;
    parts.build().refuse("signatures", "QE MRSIGNER mismatch");
}

#[test]
fn the_quoting_enclaves_report_data_contains_nothing_but_the_digest() {
    let mut parts = Parts::new(2);
    parts.qe_report[320] ^= 1;
    parts.build().refuse("signatures", "QE report hash mismatch");
    let mut parts = Parts::new(2);
    parts.qe_report[383] = 1;
    parts.build().refuse("qe-report", "the end of its report data is not zero");
}

#[test]
fn every_signature_is_checked() {
    let case = Parts::new(2).build();
    // The quote, the quoting enclave's report, TCB info, QE identity.
    for (offset, text) in
        [(636, "ISV enclave report signature is invalid"), (1154, "Signature is invalid for qe_report")]
    {
        let mut case = case.clone();
        case.quote[offset] ^= 1;
        case.refuse("signatures", text);
    }
    let mut changed = case.clone();
    changed.collateral.parts.tcb_info_signature[5] ^= 1;
    changed.refuse("signatures", "Signature is invalid for tcb_info");
    let mut changed = case;
    changed.collateral.parts.qe_identity_signature[5] ^= 1;
    changed.refuse("signatures", "Signature is invalid for qe_identity");
}

/// The library's status compares with the versions at launch: an older TDX module that runs now does not change it.
#[test]
fn a_td_whose_current_versions_are_out_of_date_is_refused() {
    let mut parts = Parts::new(3);
    let (head, tail) = parts.tcb_info.rsplit_once("{\"svn\":5}").unwrap();
    parts.tcb_info = format!("{head}{{\"svn\":4}}{tail}");
    parts.build().accept();
    parts.body[586] = 4;
    let mut case = parts.build();
    case.refuse("tcb-status", "OutOfDate when the quote was made, accepted: UpToDate");
    case.policy.statuses.push(TcbStatus::OutOfDate);
    let guest = case.accept().into_value();
    assert_eq!((guest.status, guest.current_status), (TcbStatus::UpToDate, Some(TcbStatus::OutOfDate)));
}
