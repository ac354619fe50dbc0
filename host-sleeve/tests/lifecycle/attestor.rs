//! A simulated attestor: the program inside that uses the development security module, with the real client; and a client of the
//! enclave that verifies what it got.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cloister_evidence::binding::Bound;
use cloister_evidence::eventlog::{BOOT_REGISTER, Log};
use cloister_evidence::nitro::{
    self, Binding, Document, Events, Expectation, Freshness, Measurements, Nonce, Roots,
};
use cloister_evidence::policy::{IMAGE_REGISTERS, Reference};
use cloister_evidence::{Outcome, Verdict, Verified};
use cloister_image::digest::Digest;
use cloister_nsm::channel::Channel;
use cloister_nsm::{Claims, Module};

use super::fixture::Place;

/// Where it writes the document that it got, in the enclave's directory.
const DOCUMENT: &str = "document";

/// The client's nonce.
const NONCE: &[u8] = b"nonce of the test";

/// The public key of the enclave's TLS connection.
const KEY: &[u8] = b"public key";

/// Gets a document and keeps it, and the channel for as long as the sleeve does.
pub(crate) fn attest(stream: UnixStream) {
    let mut end = stream.try_clone().unwrap();
    let channel = Channel::open(stream.into(), "virtual").unwrap();
    let document = document(&Module::over(|request: &[u8]| channel.exchange(request)));
    let mut file = std::fs::File::create("new").unwrap();
    file.write_all(&document).unwrap();
    std::fs::rename("new", DOCUMENT).unwrap();
    drop(end.read_to_end(&mut Vec::new()));
}

/// Records the end of the boot in its register, and returns a document that binds what a client of Cloister checks.
fn document(module: &Module<impl Fn(&[u8]) -> std::io::Result<Vec<u8>>>) -> Vec<u8> {
    assert!(module.describe().unwrap().module_id.starts_with("virtual-"));
    let log = Log::booted();
    module.extend(BOOT_REGISTER, &log.events()[0].extension()).unwrap();
    module.lock(BOOT_REGISTER).unwrap();
    let bound = Bound { nonce: NONCE, public_key: KEY, events: &log.head(), user_data: b"" };
    let user_data = bound.report_data().unwrap();
    let claims = Claims { nonce: Some(NONCE), public_key: Some(KEY), user_data: Some(&user_data) };
    module.attest(claims).unwrap()
}

/// A client with the measurements that `measure --virtual` has printed: the failed checks.
fn failures(document: &[u8], roots: &Roots, allow_virtual: bool, measurements: &[u8]) -> Vec<&'static str> {
    let accepted = [Reference::development("app", measurements, &IMAGE_REGISTERS).unwrap()];
    let log = Log::booted();
    let expectation = Expectation {
        allow_virtual,
        freshness: Freshness::default(),
        nonce: Nonce::Equals(NONCE),
        binding: Binding::Bound { public_key: KEY, user_data: b"" },
        measurements: Measurements::AnyOf(&accepted),
        events: Events::Log(&log),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    failed(nitro::verify(document, roots, now, &expectation))
}

fn failed(result: Result<Verified<Document>, Verdict>) -> Vec<&'static str> {
    let verdict = result.map_or_else(|verdict| verdict, |verified| verified.verdict().clone());
    assert_eq!(verdict.platform, "virtual", "{verdict}");
    let failed = verdict.checks.iter().filter(|check| matches!(check.outcome, Outcome::Fail(_)));
    failed.map(|check| check.name).collect()
}

/// The document of an enclave contains exactly what `measure --virtual` predicts, and is accepted only by a client that trusts the
/// root that `virtual-root` prints and allows the platform.
pub(crate) fn documents() {
    let place = Place::new();
    let running = place.start("attests", &[]);
    let document = wait_for(&place.runtime("web").join(DOCUMENT));
    let measured = place.sleeve("", &["measure", &place.app(), "--virtual", "--json"]);
    measured.with(0, "");
    let predicted = measured.stdout;
    let copy = place.path().join("root.der");
    let root = place.sleeve("", &["virtual-root", "--json", "--output", copy.to_str().unwrap()]);
    root.with(0, "VIRTUAL");
    let digest = Digest::of(&std::fs::read(copy).unwrap());
    assert_eq!(root.json()["sha256"], digest.hex());
    let trusted = Roots::aws().with_development(*digest.bytes());
    assert_eq!(failures(&document, &trusted, true, &predicted), [""; 0]);
    assert_eq!(failures(&document, &trusted, false, &predicted), ["platform"]);
    assert_eq!(failures(&document, &Roots::aws(), true, &predicted), ["root"]);
    let text = String::from_utf8(predicted).unwrap();
    for register in ["pcr0", "pcr1", "pcr2"] {
        let other = with_another(&text, register);
        assert_eq!(failures(&document, &trusted, true, other.as_bytes()), ["measurements"], "{register}");
    }
    verify_by_command(&place, &document, &text);
    let listed = place.sleeve("", &["virtual-root"]).text();
    assert!(listed.contains(place.runtime(".virtual/root.der").to_str().unwrap()), "{listed}");
    place.sleeve("", &["stop", "web"]).with(0, "");
    running.end().with(0, "");
    place.sleeve("", &["rm", "--all"]).with(0, "");
    assert!(place.runtime(".virtual/root.key").exists(), "the root was removed with the enclaves");
}

/// The same with `host-sleeve verify`, as a person does it.
fn verify_by_command(place: &Place, document: &[u8], measurements: &str) {
    let file = |name: &str, content: &[u8]| {
        let path = place.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let root = place.path().join("root.der").to_str().unwrap().to_owned();
    let (evidence, key) = (file("evidence.cose", document), file("key.der", KEY));
    let (measurements, nonce) =
        (file("m.json", measurements.as_bytes()), cloister_evidence::hex::text(NONCE));
    let all = ["verify", &evidence, "--nonce", &nonce, "--public-key", &key, "--measurements", &measurements];
    let verified = place.sleeve("", &[&all[..], &["--trust-root", &root, "--allow-virtual"]].concat());
    verified.with(0, "");
    let text = verified.text();
    assert!(text.starts_with("VERIFIED: VIRTUAL (no hardware protects this enclave)\n"), "{text}");
    let refused = place.sleeve("", &[&all[..], &["--trust-root", &root, "--json"]].concat());
    refused.with(1, "");
    assert_eq!(refused.json()["verified"], false);
    let without_key = [&all[..4], &all[6..], &["--trust-root", &root, "--allow-virtual"]].concat();
    let refused = place.sleeve("", &without_key);
    refused.with(1, "");
    assert!(refused.text().starts_with("NOT VERIFIED (binding): VIRTUAL"), "{}", refused.text());
}

/// The contents of a file, as soon as there is one.
fn wait_for(path: &Path) -> Vec<u8> {
    let started = Instant::now();
    while !path.exists() {
        assert!(started.elapsed() < Duration::from_secs(30), "no {}", path.display());
        std::thread::park_timeout(Duration::from_millis(10));
    }
    std::fs::read(path).unwrap()
}

/// The measurements with another value of this register.
fn with_another(measurements: &str, register: &str) -> String {
    let mut value: serde_json::Value = serde_json::from_str(measurements).unwrap();
    value["virtual"]["pcrs"][register] = "00".repeat(48).into();
    value.to_string()
}
