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

use cloister_samples::snp::{self as samples, file as generated, sign};

use super::certificate::Certificate;
use super::{Evidence, Guest, Policy, Product, Root, Tcb, verify};
use crate::tests::{accepted, read, refused};
use crate::verdict::{Verdict, Verified};

/// A time at which Milan's recorded certificates are valid, 2023-11-14.
const RECORDED: u64 = 1_700_000_000;
/// A time at which the generated certificates are valid.
const GENERATED: u64 = cloister_samples::TIME;

fn recorded(name: &str) -> Vec<u8> {
    read("snp/recorded", name)
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
        let chain = samples::chain(&product.name().to_lowercase());
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
        samples::resign(&mut self.report, offset, bytes);
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
    samples::unsigned(version, &product.name().to_lowercase())
}
