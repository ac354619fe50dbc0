//! Recorded and generated evidence, and what each test changes in it.

mod chain;
mod crl;
mod kds;
mod policy;
mod property;
mod recorded;
mod report;

use alloc::vec;
use alloc::vec::Vec;

use p384::ecdsa::signature::Signer;
use p384::ecdsa::{Signature, SigningKey as PrivateKey};

use super::certificate::Certificate;
use super::{Evidence, Guest, Policy, Product, Root, Tcb, verify};
use crate::tests::{accepted, read, refused};
use crate::verdict::{Verdict, Verified};

/// A time at which Milan's recorded certificates are valid, 2023-11-14.
const RECORDED: u64 = 1_700_000_000;
/// A time at which the generated certificates are valid, 2027-01-15.
const GENERATED: u64 = 1_800_000_000;

fn recorded(name: &str) -> Vec<u8> {
    read("snp/recorded", name)
}

fn generated(name: &str) -> Vec<u8> {
    read("snp/synthetic", name)
}

/// Evidence with everything that it is verified with.
#[derive(Clone)]
struct Case {
    report: Vec<u8>,
    chain: Vec<Vec<u8>>,
    crl: Option<Vec<u8>>,
    roots: Vec<Root>,
    policy: Policy,
    now: u64,
}

impl Case {
    /// The recorded report of Milan, with a policy that accepts it.
    fn recorded() -> Self {
        let report = recorded("milan-report.bin");
        let tcb = Tcb { fmc: 0, boot_loader: 3, tee: 0, snp: 8, microcode: 115 };
        Self {
            policy: accepting(&report, Product::Milan, tcb),
            report,
            chain: ["milan-vcek.der", "milan-ask.der", "milan-ark.der"].map(recorded).into(),
            crl: None,
            roots: Root::AMD.into(),
            now: RECORDED,
        }
    }

    /// A generated report of `version`, signed by the VCEK of `product`.
    fn generated(product: Product, version: u32) -> Self {
        let mut report = template(version, product);
        sign(&mut report);
        let name = product.name().to_lowercase();
        let chain = ["vcek", "ask", "ark"].map(|part| generated(&alloc::format!("{name}-{part}.der")));
        Self {
            policy: accepting(&report, product, tcb_of(product)),
            report,
            crl: None,
            roots: generated_roots(),
            chain: chain.into(),
            now: GENERATED,
        }
    }

    /// A generated report of Milan, signed by a VLEK.
    fn vlek() -> Self {
        let mut case = Self::generated(Product::Milan, 2);
        case.chain = ["milan-vlek.der", "milan-asvk.der", "milan-ark.der"].map(generated).into();
        case.resign(0x48, &[4]);
        case
    }

    /// Overwrites bytes of the report and signs it again.
    fn resign(&mut self, offset: usize, bytes: &[u8]) {
        self.report[offset..offset + bytes.len()].copy_from_slice(bytes);
        sign(&mut self.report);
    }

    fn verify(&self) -> Result<Verified<Guest>, Verdict> {
        let chain: Vec<&[u8]> = self.chain.iter().map(Vec::as_slice).collect();
        let evidence = Evidence { report: &self.report, chain: &chain, crl: self.crl.as_deref() };
        verify(&evidence, &self.roots, &self.policy, self.now)
    }

    #[track_caller]
    fn accept(&self) -> Verified<Guest> {
        accepted(self.verify())
    }

    /// Fails in `check`, with a text that contains `text`, and in no other check.
    #[track_caller]
    fn refuse(&self, check: &str, text: &str) {
        refused(self.verify(), check, text);
    }
}

fn accepting(report: &[u8], product: Product, tcb: Tcb) -> Policy {
    let data = report[0x50..0x90].try_into().unwrap();
    let measurement = report[0x90..0xc0].try_into().unwrap();
    Policy::new(data, vec![measurement], vec![(product, tcb)])
}

fn generated_roots() -> Vec<Root> {
    Vec::from(Product::ALL.map(|product| {
        let name = product.name().to_lowercase();
        let ark = generated(&alloc::format!("{name}-ark.der"));
        Root { product, key_sha256: Certificate::parse(&ark).unwrap().key_sha256().unwrap() }
    }))
}

/// The TCB version of the generated certificates.
fn tcb_of(product: Product) -> Tcb {
    match product {
        Product::Milan | Product::Genoa => Tcb { fmc: 0, boot_loader: 7, tee: 0, snp: 14, microcode: 72 },
        Product::Turin => Tcb { fmc: 1, boot_loader: 2, tee: 3, snp: 4, microcode: 73 },
    }
}

/// An unsigned report.
fn template(version: u32, product: Product) -> Vec<u8> {
    let mut report = vec![0; super::REPORT_LEN];
    let mut put = |offset: usize, bytes: &[u8]| report[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, &version.to_le_bytes());
    put(4, &7_u32.to_le_bytes());
    put(8, &0x3_0000_u64.to_le_bytes());
    put(0x34, &1_u32.to_le_bytes());
    put(0x40, &0x25_u64.to_le_bytes());
    put(0x50, &[0x11; 64]);
    put(0x90, &[0x22; 48]);
    put(0xc0, &[0x33; 32]);
    put(0x140, &[0x66; 32]);
    put(0x160, &[0xff; 32]);
    put(0x1a0, &[0xc1; 64][..product.chip_id_len()]);
    for offset in [0x38, 0x180, 0x1e0, 0x1f0] {
        put(offset, &tcb_of(product).write(product).0);
    }
    put(0x1e8, &[4, 55, 1, 0, 3, 54, 1]);
    if version >= 3 {
        let processor = match product {
            Product::Milan => [0x19, 0x01, 1],
            Product::Genoa => [0x19, 0x11, 1],
            Product::Turin => [0x1a, 0x02, 1],
        };
        put(0x188, &processor);
    }
    if version >= 5 {
        put(0x1f8, &5_u64.to_le_bytes());
        put(0x200, &7_u64.to_le_bytes());
    }
    report
}

/// Signs a report with the key of the generated certificates.
fn sign(report: &mut [u8]) {
    let key = PrivateKey::from_slice(&generated("leaf-test-key.bin")).unwrap();
    let signature: Signature = key.sign(&report[..0x2a0]);
    let (r, s) = signature.split_bytes();
    for (offset, number) in [(0x2a0, r), (0x2e8, s)] {
        for (byte, value) in report[offset..].iter_mut().zip(number.iter().rev()) {
            *byte = *value;
        }
    }
}
