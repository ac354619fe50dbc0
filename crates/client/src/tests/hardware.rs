//! Enclaves on SEV-SNP and TDX.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloister_evidence::binding::certificate::Carried;
use cloister_evidence::eventlog::Event;
use cloister_samples::snp as reports;
use cloister_samples::tdx::{Parts, tcb_info};
use rustls::CertificateError;

use super::fresh::{Respond, request, serve};
use super::platforms::{Guest, PLATFORMS, of_hardware, of_snp, of_tdx};
use super::signer::NOW;
use super::*;

/// A day, in seconds.
const DAY: u64 = 86_400;

/// The name of the first check that failed.
fn failed(requirements: &Requirements, presented: &Presented) -> &'static str {
    refusal(requirements.clone(), presented).verdict().unwrap().failure().unwrap().name
}

/// The name of this platform's check.
fn check(platform: &str, snp: &'static str, tdx: &'static str) -> &'static str {
    if platform == "snp" { snp } else { tdx }
}

#[test]
fn an_enclave_on_hardware_is_accepted_and_its_verdict_lists_every_check() {
    for platform in PLATFORMS {
        let client = config(Verifier::of_evidence(of_hardware())).unwrap();
        let connection = handshake(client, &Guest::default().on(platform)).unwrap();
        let statement = of_hardware().connection(&connection, NOW).unwrap();
        assert_eq!(statement.platform(), platform);
        assert!(statement.document().is_none());
        let report = statement.report().map(|guest| guest.report.measurement);
        let quote = statement.quote().map(|guest| guest.report.mr_td);
        assert_eq!(report.or(quote), Some([0x22; 48]));
        let table = if platform == "snp" { &snp::CHECKS[..] } else { &tdx::CHECKS };
        let listed: Vec<_> = statement.verdict().checks.iter().map(|check| check.name).collect();
        assert_eq!(listed, table);
    }
}

#[test]
fn a_platform_that_the_caller_does_not_require_is_refused() {
    let only_snp = Requirements { tdx: None, ..of_hardware() };
    let only_tdx = Requirements { snp: None, ..of_hardware() };
    let neither = requirements();
    for (platform, requirements) in
        [("tdx", &only_snp), ("snp", &only_tdx), ("snp", &neither), ("tdx", &neither)]
    {
        let refused = refusal(requirements.clone(), &Guest::default().on(platform));
        assert_eq!(refused, Refusal::Platform(platform.into()));
    }
    let document = Presented::of(&Draft::default());
    let requirements = Requirements { snp: Some(of_snp()), measurements: Vec::new(), ..requirements() };
    assert_eq!(failed(&requirements, &document), "measurements");
}

#[test]
fn a_platform_is_verified_as_the_one_that_is_stated() {
    for (stated, other, check) in
        [("snp", "tdx", "report"), ("tdx", "snp", "quote"), ("nitro", "snp", "format")]
    {
        let stated_as = Carried { platform: stated.into(), evidence: Guest::default().evidence(other) };
        let extensions = vec![signer::extension(&stated_as.encode().unwrap())];
        let presented = Presented::new(Carrier { extensions, ..Guest::default().carrier(other) });
        assert_eq!(failed(&of_hardware(), &presented), check, "{other} stated as {stated}");
    }
}

#[test]
fn another_image_is_refused() {
    for platform in PLATFORMS {
        let other = Guest { measurement: 0x23, ..Guest::default() };
        assert_eq!(failed(&of_hardware(), &other.on(platform)), check(platform, "measurement", "mrtd"));
    }
    let mut none = of_hardware();
    none.snp.as_mut().unwrap().policy.measurements.clear();
    none.tdx.as_mut().unwrap().policy.measurements.clear();
    for platform in PLATFORMS {
        assert_eq!(failed(&none, &Guest::default().on(platform)), check(platform, "measurement", "mrtd"));
    }
}

#[test]
fn evidence_in_another_certificate_is_refused() {
    for platform in PLATFORMS {
        let guest = Guest::default();
        let stolen = Presented { key: 2, ..Presented::new(Carrier { key: 2, ..guest.carrier(platform) }) };
        assert_eq!(failed(&of_hardware(), &stolen), "report-data");
        let again = Presented::new(Carrier { serial: vec![0x56; 16], ..guest.carrier(platform) });
        assert_eq!(failed(&of_hardware(), &again), "report-data");
        let other = Guest { nonce: vec![0x56; 16], ..guest };
        assert_eq!(failed(&of_hardware(), &other.on(platform)), "report-data");
    }
}

#[test]
fn a_certificate_that_was_replayed_without_its_key_is_refused() {
    for platform in PLATFORMS {
        let presented = Presented { key: 2, ..Guest::default().on(platform) };
        let client = config(Verifier::of_evidence(of_hardware())).unwrap();
        let error = handshake(client, &presented).unwrap_err();
        assert_eq!(error, rustls::Error::InvalidCertificate(CertificateError::BadSignature));
    }
}

#[test]
fn report_data_that_the_policy_contains_does_not_replace_the_binding() {
    let other = Guest { nonce: vec![0x56; 16], ..Guest::default() };
    let mut requirements = of_hardware();
    let (snp, tdx) = (requirements.snp.as_mut().unwrap(), requirements.tdx.as_mut().unwrap());
    let report = other.evidence("snp")[reports::REPORT_DATA..][..64].try_into().unwrap();
    (snp.policy.report_data, tdx.policy.report_data) = (report, report);
    for platform in PLATFORMS {
        assert_eq!(failed(&requirements, &other.on(platform)), "report-data");
        assert!(requirements.certificate(&Guest::default().carrier(platform).issue(), NOW).is_ok());
    }
}

#[test]
fn a_guest_under_debug_is_refused() {
    for platform in PLATFORMS {
        let guest = Guest { debug: true, ..Guest::default() };
        assert_eq!(failed(&of_hardware(), &guest.on(platform)), "debug");
    }
}

#[test]
fn a_platform_with_old_firmware_is_refused() {
    let mut requirements = of_hardware();
    requirements.snp.as_mut().unwrap().policy.minimum_tcb[0].1.microcode = 73;
    assert_eq!(failed(&requirements, &Guest::default().on("snp")), "minimum-tcb");
    let old = Parts { tcb_info: tcb_info("OutOfDate", "[]"), ..Parts::new(3) };
    let requirements = Requirements { tdx: Some(of_tdx(&old)), ..of_hardware() };
    assert_eq!(failed(&requirements, &Guest::default().on("tdx")), "tcb-status");
}

#[test]
fn without_what_the_evidence_is_verified_with_it_is_refused() {
    let mut none = of_hardware();
    none.snp.as_mut().unwrap().chains.clear();
    none.tdx.as_mut().unwrap().collateral.clear();
    for platform in PLATFORMS {
        let refused = refusal(none.clone(), &Guest::default().on(platform));
        assert!(matches!(refused, Refusal::Missing(_)), "{refused}");
        assert!(refused.to_string().starts_with("the evidence cannot be verified without "), "{refused}");
    }
    let mut incomplete = of_hardware();
    incomplete.snp.as_mut().unwrap().chains[0].pop();
    assert_eq!(failed(&incomplete, &Guest::default().on("snp")), "chain");
}

#[test]
fn a_root_that_is_not_the_vendors_must_be_given() {
    let mut vendors = of_hardware();
    vendors.snp.as_mut().unwrap().roots = SnpRequirements::of(Vec::new(), Vec::new()).roots;
    vendors.tdx.as_mut().unwrap().root = TdxRequirements::of(Vec::new(), Vec::new()).root;
    for platform in PLATFORMS {
        assert_eq!(failed(&vendors, &Guest::default().on(platform)), "root");
    }
}

#[test]
fn one_of_several_chains_and_collaterals_is_that_of_the_host() {
    let mut requirements = of_hardware();
    requirements.snp.as_mut().unwrap().chains.insert(0, reports::chain("milan").into());
    let other = Parts { tcb_info: tcb_info("UpToDate", "[]").replace("C0C06F", "C0C06E"), ..Parts::new(3) };
    let other = of_tdx(&other).collateral.remove(0);
    requirements.tdx.as_mut().unwrap().collateral.insert(0, other);
    for platform in PLATFORMS {
        let certificate = Guest::default().carrier(platform).issue();
        assert!(requirements.certificate(&certificate, NOW).is_ok());
        // The reason is that of the host's own one, not that of the others.
        let other = Guest { measurement: 0x23, ..Guest::default() };
        assert_eq!(failed(&requirements, &other.on(platform)), check(platform, "measurement", "mrtd"));
    }
    requirements.tdx.as_mut().unwrap().collateral.pop();
    assert_eq!(failed(&requirements, &Guest::default().on("tdx")), "signatures");
}

#[test]
fn a_revoked_authority_is_refused_and_a_list_can_be_required() {
    let mut requirements = of_hardware();
    let presented = Guest::default().on("snp");
    requirements.snp.as_mut().unwrap().policy.require_crl = true;
    assert_eq!(failed(&requirements, &presented), "revocation");
    let list = |requirements: &mut Requirements, name: &str| {
        requirements.snp.as_mut().unwrap().crls.push((snp::Product::Genoa, reports::file(name)));
    };
    list(&mut requirements, "genoa-revoked-ask.crl");
    assert_eq!(failed(&requirements, &presented), "revocation");
    requirements.snp.as_mut().unwrap().crls.clear();
    list(&mut requirements, "genoa-empty.crl");
    let client = config(Verifier::of_evidence(requirements.clone())).unwrap();
    assert!(handshake(client, &presented).is_ok());
    // A list of another product is no list for this chain.
    requirements.snp.as_mut().unwrap().crls[0].0 = snp::Product::Milan;
    assert_eq!(failed(&requirements, &presented), "revocation");
}

#[test]
fn what_one_list_revokes_is_revoked_whatever_other_lists_say() {
    for names in [["genoa-empty.crl", "genoa-revoked-ask.crl"], ["genoa-revoked-ask.crl", "genoa-empty.crl"]]
    {
        let mut requirements = of_hardware();
        let lists = names.map(|name| (snp::Product::Genoa, reports::file(name)));
        requirements.snp.as_mut().unwrap().crls = lists.into();
        assert_eq!(failed(&requirements, &Guest::default().on("snp")), "revocation");
    }
}

#[test]
fn of_collateral_for_one_platform_the_newest_decides() {
    let newer = tcb_info("OutOfDate", "[]").replace("Number\":20,", "Number\":21,");
    let newer = Parts { tcb_info: newer, ..Parts::new(3) };
    for at in [0, 1] {
        let mut requirements = of_hardware();
        let newer = of_tdx(&newer).collateral.remove(0);
        requirements.tdx.as_mut().unwrap().collateral.insert(at, newer);
        assert_eq!(failed(&requirements, &Guest::default().on("tdx")), "tcb-status");
    }
}

#[test]
fn collateral_that_has_expired_is_refused() {
    let certificate = Guest::default().carrier("tdx").issue();
    assert!(of_hardware().certificate(&certificate, NOW + DAY).is_ok());
    let refused = of_hardware().certificate(&certificate, NOW + 40 * DAY).unwrap_err();
    assert_eq!(refused.verdict().unwrap().failure().unwrap().name, "dates");
}

#[test]
fn the_log_is_confirmed_by_the_report_data() {
    let mut log = Log::booted();
    log.push(Event::new(17, "service.web.config", b"data").unwrap()).unwrap();
    for platform in PLATFORMS {
        let presented = Guest { log: log.clone(), ..Guest::default() }.on(platform);
        let client =
            config(Verifier::of_evidence(Requirements { log: log.clone(), ..of_hardware() })).unwrap();
        assert!(handshake(client, &presented).is_ok());
        assert_eq!(failed(&of_hardware(), &presented), "report-data");
    }
    let unfinished = Guest { log: Log::default(), ..Guest::default() };
    let requirements = Requirements { log: Log::default(), ..of_hardware() };
    for platform in PLATFORMS {
        assert_eq!(refusal(requirements.clone(), &unfinished.on(platform)), Refusal::Log);
    }
}

/// The response with evidence of this guest, and with this table of certificates.
fn response(guest: &Guest, platform: &str, table: &[u8]) -> String {
    let [document, events, certificates] =
        [&guest.evidence(platform), &guest.log.encode(), table].map(|bytes| STANDARD.encode(bytes));
    format!(
        "HTTP/1.1 200 OK\r\n\r\n{{\"document\": \"{document}\", \"events\": \"{events}\", \"platform\": \"{platform}\", \
         \"certificates\": \"{certificates}\"}}"
    )
}

#[test]
fn a_report_with_a_nonce_is_verified_with_the_hosts_certificates_and_later_connections_with_the_same() {
    let answer = request(serve(|nonce| {
        response(&Guest { nonce, ..Guest::default() }, "snp", &reports::table(&reports::chain("genoa")))
    }));
    let answer = answer.unwrap();
    let mut requirements = of_hardware();
    requirements.snp.as_mut().unwrap().chains.clear();
    let enclave = answer.verify(&requirements, NOW).unwrap();
    assert_eq!(enclave.statement().platform(), "snp");
    let of_key = config(Verifier::of_key(&enclave)).unwrap();
    assert!(handshake(of_key, &Guest::default().on("snp")).is_ok());
    requirements.snp.as_mut().unwrap().chains.push(answer.chain().unwrap());
    let of_evidence = config(Verifier::of_evidence(requirements)).unwrap();
    assert!(handshake(of_evidence, &Guest::default().on("snp")).is_ok());
}

#[test]
fn a_quote_with_a_nonce_is_verified() {
    let answer = request(serve(|nonce| response(&Guest { nonce, ..Guest::default() }, "tdx", b"")));
    let enclave = answer.unwrap().verify(&of_hardware(), NOW).unwrap();
    assert_eq!(enclave.statement().platform(), "tdx");
}

/// A guest that binds the second key.
fn of_other_key(nonce: Vec<u8>) -> Guest {
    Guest { nonce, key: 2, ..Guest::default() }
}

#[test]
fn a_report_or_quote_for_another_nonce_or_key_is_refused() {
    let failed = |respond: Respond| {
        let refused = request(serve(respond)).unwrap().verify(&of_hardware(), NOW).unwrap_err();
        refused.verdict().unwrap().failure().unwrap().name
    };
    assert_eq!(failed(|_| response(&Guest::default(), "snp", b"")), "report-data");
    assert_eq!(failed(|_| response(&Guest::default(), "tdx", b"")), "report-data");
    assert_eq!(failed(|nonce| response(&of_other_key(nonce), "snp", b"")), "report-data");
    assert_eq!(failed(|nonce| response(&of_other_key(nonce), "tdx", b"")), "report-data");
}

#[test]
fn a_malformed_table_of_certificates_is_refused() {
    let answer =
        request(serve(|nonce| response(&Guest { nonce, ..Guest::default() }, "snp", &[1; 24]))).unwrap();
    let refused = answer.verify(&of_hardware(), NOW).unwrap_err();
    assert!(matches!(refused, Refusal::Table(_)), "{refused}");
}
