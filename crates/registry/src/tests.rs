//! Pulls from a registry that is a thread of the test: the protocol's cases, and malicious registries.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use cloister_image::digest::Digest;
use cloister_image::oci::{self, Architecture, Reference};

use super::credentials::{Found, Login};
use super::retry::Retry;
use super::*;

/// A response: status, headers, body, and after how many bytes of the body the connection breaks.
struct Answer(u16, Vec<(String, String)>, Vec<u8>, Option<usize>);

/// A request: path, the headers in lower case, and the body.
struct Request {
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

type Answers = dyn FnMut(&Request) -> Answer + Send;

/// A registry on this host. Its thread ends with the test's process.
struct Fake {
    host: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn new(make: impl FnOnce(&str) -> Box<Answers>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut answer = make(&host);
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Some(request) = read(&stream) else { continue };
                log.lock().unwrap().push(request.path.clone());
                write(stream, &answer(&request));
            }
        });
        Self { host, seen }
    }

    fn pull(&self, rest: &str, cache: &tempfile::TempDir) -> Result<Pulled, PullError> {
        let reference = format!("{}/app{rest}", self.host).parse().unwrap();
        let (access, stop) = (Access::default(), AtomicBool::new(false));
        quick(&access, &|_| (), &stop).run(&reference, Architecture::X86_64, cache.path().to_owned())
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// A pull without a login, and with short pauses.
fn quick<'a>(access: &'a Access, report: &'a (dyn Fn(Event) + Sync), stop: &'a AtomicBool) -> Pull<'a> {
    let retry = Retry::after(Duration::from_millis(4));
    Pull { access, report, stop, retry, login: &|_, _| Ok(Found::default()) }
}

/// The message of an error, and those of its causes.
fn reasons(error: &PullError) -> Vec<String> {
    let first: &dyn std::error::Error = error;
    std::iter::successors(Some(first), |error| error.source()).map(ToString::to_string).collect()
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut lines = reader.by_ref().lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let header =
        |line: String| line.split_once(": ").map(|(key, value)| (key.to_lowercase(), value.to_owned()));
    let headers = lines.take_while(|line| !line.is_empty()).filter_map(header).collect();
    let mut request = Request { path, headers, body: String::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    reader.take(length).read_to_string(&mut request.body).ok()?;
    Some(request)
}

fn write(mut stream: TcpStream, Answer(status, headers, body, cut): &Answer) {
    let mut head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (key, value) in headers {
        head = head + key + ": " + value + "\r\n";
    }
    let body = &body[..cut.unwrap_or(body.len())];
    // The client may have closed the connection.
    drop(stream.write_all(&[head.as_bytes(), b"\r\n", body].concat()));
}

impl Request {
    fn header(&self, key: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

fn ok(body: impl Into<Vec<u8>>) -> Answer {
    Answer(200, Vec::new(), body.into(), None)
}

fn nothing() -> Answer {
    Answer(404, Vec::new(), Vec::new(), None)
}

/// An image of one layer, served under the paths of its parts.
#[derive(Clone)]
struct Image {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
}

impl Image {
    fn new() -> Self {
        let layer = b"layer ".repeat(1000);
        let diff_ids = [Digest::of(&layer)];
        let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = config.to_string().into_bytes();
        let part = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": oci::media::MANIFEST,
            "config": part("application/vnd.oci.image.config.v1+json", &config),
            "layers": [part("application/vnd.oci.image.layer.v1.tar", &layer)],
        });
        Self { manifest: manifest.to_string().into_bytes(), config, layer }
    }

    fn answer(&self, request: &Request) -> Answer {
        let named = |bytes: &[u8]| request.path == format!("/v2/app/blobs/{}", Digest::of(bytes));
        let manifest = format!("/v2/app/manifests/{}", self.digest());
        match () {
            () if request.path == "/v2/app/manifests/1" || request.path == manifest => {
                ok(self.manifest.clone())
            }
            () if named(&self.config) => ok(self.config.clone()),
            () if named(&self.layer) => ok(self.layer.clone()),
            () => nothing(),
        }
    }

    fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    fn is_layer(&self, request: &Request) -> bool {
        request.path.ends_with(&Digest::of(&self.layer).to_string())
    }
}

fn plain(image: &Image) -> Fake {
    let image = image.clone();
    Fake::new(|_| Box::new(move |request| image.answer(request)))
}

#[test]
fn a_tag_is_pinned_and_cached_blobs_are_not_fetched_again() {
    let (image, cache) = (Image::new(), tempfile::tempdir().unwrap());
    let fake = plain(&image);
    let pulled = fake.pull(":1", &cache).unwrap();
    assert_eq!((pulled.digest, fake.requests().len()), (image.digest(), 3));
    assert_eq!(pulled.repository, format!("{}/app", fake.host));
    // A tag is requested again, its blobs are not; a digest needs no request.
    fake.pull(":1", &cache).unwrap();
    assert_eq!(fake.requests(), ["/v2/app/manifests/1"]);
    fake.pull(&format!("@{}", image.digest()), &cache).unwrap();
    assert_eq!(fake.requests(), [""; 0]);
    assert_eq!(std::fs::read_dir(cache.path().join("blobs/sha256")).unwrap().count(), 3);
}

#[test]
fn a_document_that_a_disk_has_changed_is_fetched_again() {
    let (image, cache) = (Image::new(), tempfile::tempdir().unwrap());
    let fake = plain(&image);
    fake.pull(":1", &cache).unwrap();
    let blob = cache.path().join("blobs/sha256").join(Digest::of(&image.config).hex());
    std::fs::write(&blob, "rot").unwrap();
    fake.pull(":1", &cache).unwrap();
    assert_eq!(std::fs::read(blob).unwrap(), image.config);
}

#[test]
fn a_token_is_fetched_if_one_is_required() {
    let (image, cache) = (Image::new(), tempfile::tempdir().unwrap());
    let fake = Fake::new(|host| {
        let challenge =
            format!("Bearer realm=\"http://{host}/token\",service=\"s\",scope=\"repository:app:pull\"");
        Box::new(move |request| match request.header("authorization") {
            _ if request.path.starts_with("/token?") => ok(r#"{"access_token": "abc"}"#),
            Some("Bearer abc") => image.answer(request),
            _ => Answer(401, vec![("WWW-Authenticate".to_owned(), challenge.clone())], Vec::new(), None),
        })
    });
    fake.pull(":1", &cache).unwrap();
    let requests = fake.requests();
    assert_eq!(requests.iter().filter(|path| path.starts_with("/token")).count(), 1);
    assert!(
        requests.iter().any(|path| path == "/token?scope=repository%3Aapp%3Apull&service=s"),
        "{requests:?}"
    );
}

/// The errors of pulling from a registry on this host whose token server is `realm`, and the requests that it received.
fn with_token_server(realm: impl FnOnce(&str) -> String) -> (String, Vec<String>) {
    let fake = Fake::new(|host| {
        let challenge = format!("Bearer realm=\"{}\"", realm(host));
        Box::new(move |_| {
            Answer(401, vec![("WWW-Authenticate".to_owned(), challenge.clone())], Vec::new(), None)
        })
    });
    let error = fake.pull(":1", &tempfile::tempdir().unwrap()).unwrap_err();
    (reasons(&error).join("; "), fake.requests())
}

#[test]
fn a_token_server_of_a_local_registry_is_not_contacted_on_another_host_without_encryption() {
    for realm in [
        "http://192.0.2.1/token",
        "http://localhost@192.0.2.1/token",
        "http://127.0.0.1.nip.io/token",
        "ftp://localhost/token",
        "//localhost/token",
        "/token",
        "",
    ] {
        let (reasons, requests) = with_token_server(|_| realm.to_owned());
        assert!(reasons.contains("without encryption"), "{realm}: {reasons}");
        assert_eq!(requests, ["/v2/app/manifests/1"], "{realm}");
    }
}

#[test]
fn a_token_server_of_a_local_registry_may_be_an_encrypted_one() {
    // The server does not support TLS: what matters is that the client uses it, and sends nothing before.
    let (reasons, requests) = with_token_server(|host| format!("https://{host}/token"));
    assert!(reasons.contains("cannot reach"), "{reasons}");
    assert!(!requests.iter().any(|path| path.contains("token")), "{requests:?}");
}

#[test]
fn a_broken_download_is_resumed_where_it_broke() {
    let (image, cache) = (Image::new(), tempfile::tempdir().unwrap());
    let (whole, layer) = (image.layer.clone(), Digest::of(&image.layer));
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&ranges);
    let fake = Fake::new(move |_| {
        Box::new(move |request| {
            if !image.is_layer(request) {
                return image.answer(request);
            }
            let from =
                request.header("range").map_or(0, |range| range[6..].trim_end_matches('-').parse().unwrap());
            log.lock().unwrap().push(from);
            let rest = whole[from..].to_vec();
            let cut = (from < 4000).then_some(2000);
            Answer(if from == 0 { 200 } else { 206 }, Vec::new(), rest, cut)
        })
    });
    fake.pull(":1", &cache).unwrap();
    assert_eq!(*ranges.lock().unwrap(), [0, 2000, 4000]);
    assert!(cache.path().join("blobs/sha256").join(layer.hex()).is_file());
}

#[test]
fn a_cancelled_pull_leaves_no_partial_files() {
    let (image, cache) = (Image::new(), tempfile::tempdir().unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let cancelled = Arc::clone(&stop);
    let fake = Fake::new(move |_| {
        Box::new(move |request| {
            cancelled.fetch_or(image.is_layer(request), Ordering::Relaxed);
            image.answer(request)
        })
    });
    let reference = format!("{}/app:1", fake.host).parse().unwrap();
    let access = Access::default();
    let pull = quick(&access, &|_| (), &stop);
    pull.run(&reference, Architecture::X86_64, cache.path().to_owned()).unwrap_err();
    assert!(stop.load(Ordering::Relaxed));
    // The manifest and the configuration, which were complete before.
    assert_eq!(std::fs::read_dir(cache.path().join("blobs/sha256")).unwrap().count(), 2);
}

#[test]
fn a_download_without_progress_is_aborted() {
    let (image, cache) = (Image::new(), tempfile::tempdir().unwrap());
    let fake = Fake::new(move |_| {
        Box::new(move |request| {
            let answer = image.answer(request);
            if image.is_layer(request) { Answer(200, Vec::new(), answer.2, Some(0)) } else { answer }
        })
    });
    let error = fake.pull(":1", &cache).unwrap_err();
    assert!(matches!(error, PullError::Registry(RegistryError::Broken { .. })), "{error:?}");
}

/// Pulls from a registry that responds with `response` where `to` is true. Returns the errors, and the number of cached files.
fn pull_with_response(
    to: fn(&Image, &Request) -> bool,
    response: impl Fn(&Image) -> Answer + Send + 'static,
) -> (Vec<String>, usize) {
    let (image, cache) = (Image::new(), tempfile::tempdir().unwrap());
    let digest = image.digest();
    let fake = Fake::new(move |_| {
        Box::new(move |request| if to(&image, request) { response(&image) } else { image.answer(request) })
    });
    let error = fake.pull(&format!("@{digest}"), &cache).unwrap_err();
    (reasons(&error), std::fs::read_dir(cache.path().join("blobs/sha256")).unwrap().count())
}

#[test]
fn data_with_a_wrong_digest_or_length_is_not_stored() {
    let is_manifest: fn(&Image, &Request) -> bool = |_, request| request.path.contains("/manifests/");
    let (reasons, stored) = pull_with_response(is_manifest, |_| ok("{}"));
    assert!(reasons[0].contains("expected sha256:") && stored == 0, "{reasons:?}, {stored}");
    let (reasons, stored) = pull_with_response(Image::is_layer, |image| ok(vec![0; image.layer.len()]));
    assert!(reasons[0].contains("expected sha256:") && stored == 2, "{reasons:?}, {stored}");
    let (reasons, stored) = pull_with_response(Image::is_layer, |image| ok(vec![0; image.layer.len() + 1]));
    assert!(reasons[0].contains("exceeds the limit of 6000 bytes") && stored == 2, "{reasons:?}, {stored}");
    let (reasons, stored) = pull_with_response(is_manifest, |_| ok(vec![b' '; 5 << 20]));
    assert!(
        reasons[0].contains("exceeds the limit of 4194304 bytes") && stored == 0,
        "{reasons:?}, {stored}"
    );
}

#[test]
fn each_refusal_has_its_own_error() {
    let all: fn(&Image, &Request) -> bool = |_, _| true;
    let refused = |status: u16, headers: &[(&str, &str)], body: &'static str| {
        let headers: Vec<_> =
            headers.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        pull_with_response(all, move |_| Answer(status, headers.clone(), body.into(), None)).0.join("; ")
    };
    assert!(refused(404, &[], "").contains("not found on"));
    assert!(refused(429, &[], "").contains("limits the rate of requests"));
    let hours = refused(429, &[("Retry-After", "7200")], "");
    assert!(hours.contains("retry after 2 h"), "{hours}");
    assert!(refused(403, &[], "").contains("denied access to anonymous users"));
    assert!(refused(401, &[], "").contains("sent no supported challenge"));
    let message = refused(500, &[], r#"{"errors": [{"code": "UNKNOWN", "message": "no disk"}]}"#);
    assert!(message.contains("status 500 (no disk)"), "{message}");
    let redirected = |to| refused(302, &[("Location", to)], "");
    assert!(redirected("http://192.0.2.1/x").contains("redirects to another host without encryption"));
    assert!(redirected("/v2/app/manifests/1").contains("redirects more than ten times"));
    assert!(refused(401, &[("WWW-Authenticate", "Digest x")], "").contains("sent no supported challenge"));
}

#[test]
fn an_unreachable_registry_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let fake = Fake { host: host.clone(), seen: Arc::default() };
    let error = fake.pull(":1", &tempfile::tempdir().unwrap()).unwrap_err();
    assert!(reasons(&error)[0].contains(&format!("cannot reach {host}")), "{:?}", reasons(&error));
}

#[test]
fn temporary_errors_are_retried() {
    let (image, cache) = (Image::new(), tempfile::tempdir().unwrap());
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    let busy = [("Retry-After".to_owned(), "0".to_owned())];
    let fake = Fake::new(move |_| {
        Box::new(move |request| {
            let count = seen.entry(request.path.clone()).or_default();
            *count += 1;
            match *count {
                1 => Answer(503, busy.to_vec(), Vec::new(), None),
                2 => Answer(429, Vec::new(), Vec::new(), None),
                // The connection is closed before the body.
                3 => Answer(200, Vec::new(), vec![0; 10], Some(0)),
                _ => image.answer(request),
            }
        })
    });
    let (access, stop, events) = (Access::default(), AtomicBool::new(false), Mutex::new(Vec::new()));
    let report = |event| events.lock().unwrap().push(event);
    let reference = format!("{}/app:1", fake.host).parse().unwrap();
    let pull = quick(&access, &report, &stop);
    pull.run(&reference, Architecture::X86_64, cache.path().to_owned()).unwrap();
    let events = events.into_inner().unwrap();
    let waits = events.iter().filter(|event| matches!(event, Event::Waiting(..))).count();
    assert_eq!(waits, 9, "three for each of manifest, configuration and layer: {events:?}");
}

#[test]
fn retries_of_a_persistent_error_are_limited() {
    let fake = Fake::new(|_| Box::new(|_| Answer(500, Vec::new(), Vec::new(), None)));
    let error = fake.pull(":1", &tempfile::tempdir().unwrap()).unwrap_err();
    assert!(reasons(&error).concat().contains("status 500"), "{error:?}");
    assert!(matches!(&error, PullError::Registry(error) if error.is_passing()), "{error:?}");
    assert_eq!(fake.requests().len(), 5);
}

#[test]
fn an_identity_token_is_exchanged_for_an_access_token() {
    let (image, cache) = (Image::new(), tempfile::tempdir().unwrap());
    let forms = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&forms);
    let fake = Fake::new(move |host| {
        let challenge = format!("Bearer realm=\"http://{host}/oauth2/token\",service=\"{host}\"");
        Box::new(move |request| match request.header("authorization") {
            None if request.path == "/oauth2/token" => {
                log.lock().unwrap().push(request.body.clone());
                ok(r#"{"access_token": "abc"}"#)
            }
            Some("Bearer abc") => image.answer(request),
            _ => Answer(401, vec![("WWW-Authenticate".to_owned(), challenge.clone())], Vec::new(), None),
        })
    });
    let (access, stop) = (Access::default(), AtomicBool::new(false));
    let login = |_: &str, _: &str| {
        Ok(Found { login: Some(Login::Identity("re fresh".to_owned())), ..Found::default() })
    };
    let pull = Pull { login: &login, ..quick(&access, &|_| (), &stop) };
    let reference = format!("{}/app:1", fake.host).parse().unwrap();
    pull.run(&reference, Architecture::X86_64, cache.path().to_owned()).unwrap();
    let forms = forms.lock().unwrap();
    assert_eq!(forms.len(), 1);
    for part in [
        "grant_type=refresh_token",
        "refresh_token=re+fresh",
        "scope=repository%3Aapp%3Apull",
        "service=127.0.0.1",
    ] {
        assert!(forms[0].replace("%20", "+").contains(part), "{part} in {}", forms[0]);
    }
}

#[test]
fn a_local_registry_may_redirect_to_another_server_on_this_host() {
    let (image, cache) = (Image::new(), tempfile::tempdir().unwrap());
    let stored = image.clone();
    let store = Fake::new(move |_| {
        Box::new(move |request| match request.header("authorization") {
            None if request.path == "/bucket/layer?sign=1" => ok(stored.layer.clone()),
            _ => nothing(),
        })
    });
    let place = format!("http://{}/bucket/layer?sign=1", store.host);
    let fake = Fake::new(move |_| {
        Box::new(move |request| match request.header("authorization") {
            None => Answer(401, vec![("WWW-Authenticate".to_owned(), "Basic".to_owned())], Vec::new(), None),
            Some(_) if image.is_layer(request) => {
                Answer(307, vec![("Location".to_owned(), place.clone())], Vec::new(), None)
            }
            Some(_) => image.answer(request),
        })
    });
    let (access, stop) = (Access::default(), AtomicBool::new(false));
    let login = |_: &str, _: &str| {
        let (user, password) = ("me".to_owned(), "secret".to_owned());
        Ok(Found { login: Some(Login::Password { user, password }), ..Found::default() })
    };
    let pull = Pull { login: &login, ..quick(&access, &|_| (), &stop) };
    let reference = format!("{}/app:1", fake.host).parse().unwrap();
    pull.run(&reference, Architecture::X86_64, cache.path().to_owned()).unwrap();
}

#[test]
fn a_mirror_is_tried_first_and_the_registry_after_it() {
    let (image, cache) = (Image::new(), tempfile::tempdir().unwrap());
    let (fake, lacking) = (plain(&image), Fake::new(|_| Box::new(|_| nothing())));
    let image = Image::new();
    let full = Fake::new(move |_| {
        Box::new(move |request| {
            let path = request.path.replace("/v2/hub/app/", "/v2/app/");
            image.answer(&Request { path, headers: Vec::new(), body: String::new() })
        })
    });
    let reference: Reference = format!("{}/app:1", fake.host).parse().unwrap();
    let stop = AtomicBool::new(false);
    let mut access = Access { mirrors: vec![(fake.host.clone(), lacking.host.clone())], ..Access::default() };
    let events = Mutex::new(Vec::new());
    let report = |event| events.lock().unwrap().push(event);
    let pulled =
        quick(&access, &report, &stop).run(&reference, Architecture::X86_64, cache.path().to_owned());
    assert_eq!(pulled.unwrap().repository, format!("{}/app", fake.host));
    assert!(
        events
            .lock()
            .unwrap()
            .iter()
            .any(|event| matches!(event, Event::Skipped(mirror, _) if *mirror == lacking.host))
    );
    fake.requests();
    access.mirrors = vec![(fake.host.clone(), format!("{}/hub", full.host))];
    let other = tempfile::tempdir().unwrap();
    quick(&access, &|_| (), &stop).run(&reference, Architecture::X86_64, other.path().to_owned()).unwrap();
    assert_eq!(fake.requests(), [""; 0], "the registry was contacted although the mirror has everything");
}

#[test]
fn the_target_of_a_redirect_does_not_get_the_registrys_password() {
    let (image, cache) = (Image::new(), tempfile::tempdir().unwrap());
    let thief = Fake::new(|host| {
        let challenge = format!("Bearer realm=\"http://{host}/token\"");
        Box::new(move |_| {
            Answer(401, vec![("WWW-Authenticate".to_owned(), challenge.clone())], Vec::new(), None)
        })
    });
    let place = format!("http://{}/layer", thief.host);
    let fake = Fake::new(move |_| {
        Box::new(move |request| {
            let moved = vec![("Location".to_owned(), place.clone())];
            if image.is_layer(request) { Answer(307, moved, Vec::new(), None) } else { image.answer(request) }
        })
    });
    let (access, stop) = (Access::default(), AtomicBool::new(false));
    let login = |_: &str, _: &str| panic!("the registry required no login");
    let pull = Pull { login: &login, ..quick(&access, &|_| (), &stop) };
    let reference = format!("{}/app:1", fake.host).parse().unwrap();
    let error = pull.run(&reference, Architecture::X86_64, cache.path().to_owned()).unwrap_err();
    assert!(reasons(&error).concat().contains("denied access to anonymous users"), "{error:?}");
    assert_eq!(thief.requests(), ["/layer"], "its token server was contacted");
}

#[test]
fn a_refused_anonymous_token_is_reported_as_denied_or_with_the_helpers_error() {
    let refused = |helper_error: fn() -> Option<RegistryError>| {
        let fake = Fake::new(|host| {
            let challenge = format!("Bearer realm=\"http://{host}/token\"");
            Box::new(move |request| {
                if request.path.starts_with("/token?") {
                    return ok(r#"{"token": "anybody"}"#);
                }
                let header = ("WWW-Authenticate".to_owned(), challenge.clone());
                Answer(401, vec![header], Vec::new(), None)
            })
        });
        let (access, stop) = (Access::default(), AtomicBool::new(false));
        let login = |_: &str, _: &str| Ok(Found { login: None, helper_error: helper_error() });
        let pull = Pull { login: &login, ..quick(&access, &|_| (), &stop) };
        let cache = tempfile::tempdir().unwrap();
        let reference = format!("{}/app:1", fake.host).parse().unwrap();
        pull.run(&reference, Architecture::X86_64, cache.path().to_owned()).unwrap_err()
    };
    let error = refused(|| None);
    assert!(matches!(error, PullError::Registry(RegistryError::Denied { known: false, .. })), "{error:?}");
    let why = || Some(RegistryError::Helper { helper: "ecr".to_owned(), why: "expired".to_owned() });
    assert!(reasons(&refused(why)).concat().contains("expired"));
}
