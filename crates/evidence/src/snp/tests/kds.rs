//! Requests to AMD's key distribution service, byte for byte.

use super::super::kds::{AMD, KdsError, Kind, cert_chain, chain, crl, vcek};
use super::super::{Product, Report};
use super::{recorded, template};

#[test]
fn the_address_of_a_certificate_names_chip_and_tcb_version() {
    let report = Report::parse(&recorded("milan-report.bin")).unwrap();
    let chip = "d49554ec717f4e5b0fe6b143bcf0405bd7ae304727edf46603f2a76aef6a3abc\
                15d7af38db757039029f0efacfd08e244324884738c72b082e2f87a44d541eb6";
    assert_eq!(
        vcek(AMD, Product::Milan, &report).unwrap().url,
        alloc::format!(
            "https://kdsintf.amd.com/vcek/v1/Milan/{chip}?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=115"
        )
    );
    let report = Report::parse(&template(5, Product::Turin)).unwrap();
    let request = vcek("http://127.0.0.1:1", Product::Turin, &report).unwrap();
    let query = "fmcSPL=01&blSPL=02&teeSPL=03&snpSPL=04&ucodeSPL=73";
    assert_eq!(request.url, alloc::format!("http://127.0.0.1:1/vcek/v1/Turin/c1c1c1c1c1c1c1c1?{query}"));
    assert_eq!((request.header, request.limit), (None, 65_536));
}

#[test]
fn a_masked_chip_has_no_address() {
    let mut bytes = template(5, Product::Genoa);
    bytes[0x1a0..0x1e0].fill(0);
    let report = Report::parse(&bytes).unwrap();
    assert_eq!(vcek(AMD, Product::Genoa, &report), Err(KdsError::MaskedChip));
    let report = Report::parse(&template(5, Product::Genoa)).unwrap();
    assert_eq!(vcek(AMD, Product::Turin, &report), Err(KdsError::Chip(Product::Turin)));
}

#[test]
fn the_addresses_of_chains_and_lists_are_those_of_the_interface() {
    let urls = [
        cert_chain(AMD, Kind::Vcek, Product::Milan),
        cert_chain(AMD, Kind::Vlek, Product::Genoa),
        crl(AMD, Kind::Vcek, Product::Turin),
        crl(AMD, Kind::Vlek, Product::Milan),
    ];
    assert_eq!(
        urls.map(|request| request.url),
        [
            "https://kdsintf.amd.com/vcek/v1/Milan/cert_chain",
            "https://kdsintf.amd.com/vlek/v1/Genoa/cert_chain",
            "https://kdsintf.amd.com/vcek/v1/Turin/crl",
            "https://kdsintf.amd.com/vlek/v1/Milan/crl",
        ]
    );
}

#[test]
fn a_recorded_answer_is_the_chain_in_der() {
    let answer = recorded("turin-cert-chain.pem");
    assert_eq!(chain(&answer).unwrap(), [recorded("turin-ask.der"), recorded("turin-ark.der")]);
    assert_eq!(chain(&answer[..answer.len() / 2]), Err(KdsError::Chain));
    assert_eq!(chain(b""), Err(KdsError::Chain));
    assert_eq!(chain(&[answer.clone(), answer].concat()), Err(KdsError::Chain));
}
