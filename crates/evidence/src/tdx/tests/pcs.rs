//! Requests to Intel's provisioning certification service, byte for byte, and its answers.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use cloister_samples::tdx::{Parts, file};

use super::super::pcs::{Authority, INTEL, PcsError, Platform, collateral, qe_identity, root_crl};
use super::super::{Collateral, Quote};
use super::generated::Build as _;
use super::{Case, recorded};
use crate::fetch::{Fetch, Request, Response};
use crate::hex;

const PLATFORM: Platform = Platform { fmspc: [0xb0, 0xc0, 0x6f, 0, 0, 0], authority: Authority::Platform };

#[test]
fn the_addresses_are_those_of_the_interface() {
    let requests = [
        PLATFORM.tcb_info(INTEL),
        qe_identity(INTEL),
        PLATFORM.pck_crl(INTEL),
        Platform { authority: Authority::Processor, ..PLATFORM }.pck_crl("http://127.0.0.1:8081"),
        root_crl(),
    ];
    let base = "https://api.trustedservices.intel.com";
    let expected = [
        (format!("{base}/tdx/certification/v4/tcb?fmspc=B0C06F000000"), Some("TCB-Info-Issuer-Chain")),
        (format!("{base}/tdx/certification/v4/qe/identity"), Some("SGX-Enclave-Identity-Issuer-Chain")),
        (
            format!("{base}/sgx/certification/v4/pckcrl?ca=platform&encoding=der"),
            Some("SGX-PCK-CRL-Issuer-Chain"),
        ),
        (
            String::from("http://127.0.0.1:8081/sgx/certification/v4/pckcrl?ca=processor&encoding=der"),
            Some("SGX-PCK-CRL-Issuer-Chain"),
        ),
        (String::from("https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"), None),
    ];
    assert_eq!(requests.map(|request| (request.url, request.header)), expected);
}

#[test]
fn a_quote_names_the_platform_that_made_it() {
    let of = |name| Platform::of(&Quote::parse(&recorded(name)).unwrap());
    assert_eq!(of("td10.quote"), Some(PLATFORM));
    assert_eq!(of("td15-outdated.quote").unwrap().fmspc, [0x90, 0xc0, 0x6f, 0, 0, 0]);
    let mut parts = Parts::new(2);
    parts.chain = file("pck-chain-reordered.pem");
    assert_eq!(Platform::of(&Quote::parse(&parts.build().quote).unwrap()), None);
}

/// A service that answers with recorded collateral.
struct Service {
    recorded: Collateral,
    asked: RefCell<Vec<String>>,
    change: fn(&mut Response),
}

impl Service {
    fn new(change: fn(&mut Response)) -> Self {
        Self { recorded: Case::recorded("td10", 0).collateral, asked: RefCell::default(), change }
    }
}

impl Fetch for Service {
    type Error = &'static str;

    fn fetch(&self, request: &Request) -> Result<Response, Self::Error> {
        self.asked.borrow_mut().push(request.url.clone());
        let parts = &self.recorded.parts;
        let signed = |name: &str, document: &str, signature: &[u8]| {
            format!("{{\"{name}\":{document},\"signature\":\"{}\"}}", hex::text(signature)).into_bytes()
        };
        let header = |chain: &str| Some(chain.replace('\n', "%0A").replace(' ', "%20"));
        let (body, header) = match request.url.as_str() {
            url if url.contains("/tcb?") => (
                signed("tcbInfo", &parts.tcb_info, &parts.tcb_info_signature),
                header(&parts.tcb_info_issuer_chain),
            ),
            url if url.ends_with("/qe/identity") => (
                signed("enclaveIdentity", &parts.qe_identity, &parts.qe_identity_signature),
                header(&parts.qe_identity_issuer_chain),
            ),
            url if url.contains("/pckcrl?") => (parts.pck_crl.clone(), header(&parts.pck_crl_issuer_chain)),
            url if url.ends_with("/IntelSGXRootCA.der") => (parts.root_ca_crl.clone(), None),
            _ => return Err("404"),
        };
        let mut response = Response { body, header };
        (self.change)(&mut response);
        Ok(response)
    }
}

#[test]
fn fetched_collateral_is_the_recorded_one() {
    let service = Service::new(|_| ());
    assert_eq!(collateral(&service, INTEL, PLATFORM), Ok(service.recorded.clone()));
    assert_eq!(service.asked.borrow().len(), 4);
}

#[test]
fn faulty_answers_are_named() {
    let problem = |change: fn(&mut Response)| match collateral(&Service::new(change), INTEL, PLATFORM) {
        Err(PcsError::Answer { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    assert_eq!(problem(|response| response.header = None), "the answer has no certificates in its header");
    assert_eq!(
        problem(|response| response.header = Some("%4".into())),
        "the certificates in the header are malformed"
    );
    assert_eq!(
        problem(|response| response.header = Some("%ff".into())),
        "the certificates in the header are malformed"
    );
    assert_eq!(problem(|response| response.body = b"{}".into()), "the answer is not a signed document");
    assert_eq!(
        problem(|response| response.body = b"{\"tcbInfo\":{},\"signature\":\"0\"}".into()),
        "the answer is not a signed document"
    );
    assert_eq!(
        problem(|response| response.body.resize(262_145, 0)),
        "the answer exceeds the request's limit"
    );
}

/// A service that cannot be reached.
struct Unreachable;

impl Fetch for Unreachable {
    type Error = &'static str;

    fn fetch(&self, _: &Request) -> Result<Response, Self::Error> {
        Err("connection refused")
    }
}

#[test]
fn a_failed_request_is_named_with_its_address() {
    let error = collateral(&Unreachable, "http://127.0.0.1:1", PLATFORM).unwrap_err();
    assert_eq!(
        format!("{error}"),
        "http://127.0.0.1:1/tdx/certification/v4/tcb?fmspc=B0C06F000000: connection refused"
    );
}
