//! Quotes of TDX and their collateral, signed under the test root, for the states that no recorded quote has.
//!
//! Sources of the formats: Intel TDX DCAP Quoting Library API, appendix A; Intel PCS API version 4.

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use sha2::{Digest as _, Sha256};

/// What a quote and its collateral consist of. Each field can be changed before it is signed.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The quote's version.
    pub version: u16,
    /// The TD's report.
    pub body: Vec<u8>,
    /// The report of the quoting enclave.
    pub qe_report: Vec<u8>,
    /// The certificates in the quote, in PEM.
    pub chain: Vec<u8>,
    /// TCB info, in JSON.
    pub tcb_info: String,
    /// The identity of the quoting enclave, in JSON.
    pub qe_identity: String,
    /// The certificates above both, in PEM.
    pub signer_chain: String,
    /// The root's list of revoked certificates, in DER.
    pub root_crl: Vec<u8>,
    /// The platform authority's list, in DER.
    pub pck_crl: Vec<u8>,
}

/// A file of the test data.
#[must_use]
pub fn file(name: &str) -> Vec<u8> {
    crate::read("tdx", name)
}

/// The root's certificate, in DER.
#[must_use]
pub fn root() -> Vec<u8> {
    file("root.der")
}

fn text(name: &str) -> String {
    String::from_utf8(file(name)).unwrap()
}

fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    let signature: Signature = SigningKey::from_slice(key).unwrap().sign(message);
    signature.to_bytes().to_vec()
}

/// The private number of the attestation key, which a quoting enclave draws itself.
const ATTESTATION_KEY: [u8; 32] = [7; 32];
/// The offset of the attributes in a body.
pub const ATTRIBUTES: usize = 120;
/// The offset of the initial content's measurement.
pub const MR_TD: usize = 136;
/// The offset of the report data.
pub const REPORT_DATA: usize = 520;
/// The offset of the service TDs' measurement in a body of TDX 1.5.
pub const SERVICE_TD: usize = 600;

impl Parts {
    /// A platform that is up to date. `body_type` as in version 5; version 4 for 2.
    #[must_use]
    pub fn new(body_type: u16) -> Self {
        Self {
            version: if body_type == 2 { 4 } else { 5 },
            body: body(body_type),
            qe_report: qe_report(),
            chain: file("pck-chain.pem"),
            tcb_info: tcb_info("UpToDate", "[]"),
            qe_identity: qe_identity("UpToDate"),
            signer_chain: text("signer-chain.pem"),
            root_crl: file("root.crl"),
            pck_crl: file("pck.crl"),
        }
    }

    /// The collateral in JSON, as `dcap-qvl` writes it.
    #[must_use]
    pub fn collateral(&self) -> Vec<u8> {
        let signer = file("signer-test-key.bin");
        let collateral = serde_json::json!({
            "pck_crl_issuer_chain": text("signer-chain.pem"),
            "root_ca_crl": digits(&self.root_crl),
            "pck_crl": digits(&self.pck_crl),
            "tcb_info_issuer_chain": self.signer_chain,
            "tcb_info": self.tcb_info,
            "tcb_info_signature": digits(&sign(&signer, self.tcb_info.as_bytes())),
            "qe_identity_issuer_chain": self.signer_chain,
            "qe_identity": self.qe_identity,
            "qe_identity_signature": digits(&sign(&signer, self.qe_identity.as_bytes())),
        });
        collateral.to_string().into_bytes()
    }

    /// The quote, signed.
    #[must_use]
    pub fn quote(&self) -> Vec<u8> {
        let mut signed = header(self.version);
        if self.version == 5 {
            let body_type: u16 = if self.body.len() == 648 { 3 } else { 4 };
            signed.extend(body_type.to_le_bytes());
            signed.extend(u32::try_from(self.body.len()).unwrap().to_le_bytes());
        }
        signed.extend(&self.body);
        let mut certified = self.qe_report.clone();
        certified.extend(sign(&file("pck-test-key.bin"), &self.qe_report));
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

fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
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
    let mut body = vec![0; if body_type == 2 { 584 } else { 648 }];
    body[..3].copy_from_slice(&[3, 0, 5]);
    body[ATTRIBUTES..ATTRIBUTES + 8].copy_from_slice(&0x1000_0000_u64.to_le_bytes());
    // MRTD, three identifiers, four registers: a different byte for each.
    for (value, register) in (1..).zip(body[MR_TD..REPORT_DATA].chunks_mut(48)) {
        register.fill(value);
    }
    body[REPORT_DATA..REPORT_DATA + 64].fill(0x77);
    if body_type == 3 {
        body[584..587].copy_from_slice(&[3, 0, 5]);
    }
    body
}

fn qe_report() -> Vec<u8> {
    let mut report = vec![0; 384];
    report[48] = 0x11;
    report[128..160].fill(0x8c);
    report[256..258].copy_from_slice(&2_u16.to_le_bytes());
    report[258..260].copy_from_slice(&4_u16.to_le_bytes());
    let digest = Sha256::digest([attestation_key().as_slice(), &[9; 32]].concat());
    report[320..352].copy_from_slice(&digest);
    report
}

fn repeated(value: &str, count: usize) -> String {
    vec![value; count].join(",")
}

/// TCB info with one level for current platforms and one for older ones.
#[must_use]
pub fn tcb_info(status: &str, advisories: &str) -> String {
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

/// The identity of the quoting enclave, with this status.
#[must_use]
pub fn qe_identity(status: &str) -> String {
    format!(
        "{{\"id\":\"TD_QE\",\"version\":2,\"issueDate\":\"2027-01-02T00:00:00Z\",\"nextUpdate\":\"2027-02-01T00:00:00Z\",\
         \"tcbEvaluationDataNumber\":21,\"miscselect\":\"00000000\",\"miscselectMask\":\"FFFFFFFF\",\
         \"attributes\":\"11000000000000000000000000000000\",\"attributesMask\":\"FBFFFFFFFFFFFFFF0000000000000000\",\
         \"mrsigner\":\"{}\",\"isvprodid\":2,\"tcbLevels\":[{{\"tcb\":{{\"isvsvn\":4}},\
         \"tcbDate\":\"2026-03-11T00:00:00Z\",\"tcbStatus\":\"{status}\"}}]}}",
        "8C".repeat(32),
    )
}
