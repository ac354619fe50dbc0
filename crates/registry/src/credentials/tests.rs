//! Logins in every form in which docker, podman and cloud tools store them.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use super::files::{Source, sources};
use super::*;

const HUB: &str = "registry-1.docker.io";

fn find_text(text: &str, registry: &str, repository: &str) -> Result<Option<Login>, RegistryError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let source = Source::File { path: file.path().to_owned(), named: true, legacy: false };
    source.find(registry, repository).map(|found| found.login)
}

fn user(login: Option<Login>) -> Option<String> {
    match login? {
        Login::Password { user, password } => Some(format!("{user}:{password}")),
        Login::Identity(token) => Some(format!("identity {token}")),
        Login::Access(token) => Some(format!("access {token}")),
    }
}

/// The forms in which docker, podman and cloud tools store a login: file, registry, repository, expected result.
/// `bWU6c2VjcmV0` is `me:secret`, `aHViOng=` is `hub:x`, `bnM6eQ==` is `ns:y`.
const FORMS: [(&str, &str, &str, Option<&str>); 21] = [
    (r#"{"auths": {"ghcr.io": {"auth": "bWU6c2VjcmV0"}}}"#, "ghcr.io", "a/b", Some("me:secret")),
    (r#"{"auths": {"ghcr.io": {"auth": "bWU6c2VjcmV0"}}}"#, "other.io", "a/b", None),
    (r#"{"auths": {"ghcr.io": {"auth": "bWU6c2VjcmV0"}}}"#, "ghcr.io:5000", "a/b", None),
    (r#"{"auths": {"https://ghcr.io": {"auth": "bWU6c2VjcmV0"}}}"#, "ghcr.io", "a", Some("me:secret")),
    (r#"{"auths": {"http://ghcr.io/v2/": {"auth": "bWU6c2VjcmV0"}}}"#, "ghcr.io", "a", Some("me:secret")),
    (r#"{"auths": {"ghcr.io/v1/": {"auth": "bWU6c2VjcmV0"}}}"#, "ghcr.io", "a", Some("me:secret")),
    (
        r#"{"auths": {"https://index.docker.io/v1/": {"auth": "aHViOng="}}}"#,
        HUB,
        "library/nginx",
        Some("hub:x"),
    ),
    (r#"{"auths": {"docker.io": {"auth": "aHViOng="}}}"#, HUB, "library/nginx", Some("hub:x")),
    (r#"{"auths": {"index.docker.io": {"auth": "aHViOng="}}}"#, HUB, "library/nginx", Some("hub:x")),
    (r#"{"auths": {"registry-1.docker.io": {"auth": "aHViOng="}}}"#, HUB, "library/nginx", Some("hub:x")),
    // Namespaces: the longest key wins, a sibling's does not count.
    (
        r#"{"auths": {"q.io": {"auth": "aHViOng="}, "q.io/a": {"auth": "bnM6eQ=="}}}"#,
        "q.io",
        "a/b",
        Some("ns:y"),
    ),
    (
        r#"{"auths": {"q.io": {"auth": "aHViOng="}, "q.io/a/b": {"auth": "bnM6eQ=="}}}"#,
        "q.io",
        "a/b",
        Some("ns:y"),
    ),
    (
        r#"{"auths": {"q.io": {"auth": "aHViOng="}, "q.io/ab": {"auth": "bnM6eQ=="}}}"#,
        "q.io",
        "a/b",
        Some("hub:x"),
    ),
    (r#"{"auths": {"q.io/other": {"auth": "bnM6eQ=="}}}"#, "q.io", "a/b", None),
    (r#"{"auths": {"docker.io/me": {"auth": "bnM6eQ=="}}}"#, HUB, "me/app", Some("ns:y")),
    // Other members.
    (r#"{"auths": {"q.io": {"username": "u", "password": "p"}}}"#, "q.io", "a", Some("u:p")),
    (r#"{"auths": {"q.io": {"auth": "bWU6", "identitytoken": "t"}}}"#, "q.io", "a", Some("identity t")),
    (r#"{"auths": {"q.io": {"registrytoken": "t"}}}"#, "q.io", "a", Some("access t")),
    // Without padding, and with the NUL that some systems append.
    (r#"{"auths": {"q.io": {"auth": "aHViOng"}}}"#, "q.io", "a", Some("hub:x")),
    (r#"{"auths": {"q.io": {"auth": "aHViOngA"}}}"#, "q.io", "a", Some("hub:x")),
    (r#"{"auths": {"q.io": {}}, "HttpHeaders": {"a": "b"}}"#, "q.io", "a", None),
];

#[test]
fn every_form_of_a_stored_login_is_found_for_its_registry_alone() {
    for (text, registry, repository, expected) in FORMS {
        let found = user(find_text(text, registry, repository).unwrap());
        assert_eq!(found.as_deref(), expected, "{text} for {registry}/{repository}");
    }
}

#[test]
fn a_login_does_not_print_its_secret() {
    for form in FORMS.iter().filter(|form| form.3.is_some()) {
        let login = find_text(form.0, form.1, form.2).unwrap().unwrap();
        let (user, secret) = match &login {
            Login::Password { user, password } => (user.as_str(), password.as_str()),
            Login::Identity(token) | Login::Access(token) => ("", token.as_str()),
        };
        let shown = format!("{login:?}").replace("Identity", "").replace("Password", "").replace(user, "");
        assert!(!shown.contains(&format!("\"{secret}\"")), "{shown}");
    }
}

#[test]
fn the_old_file_has_its_entries_at_the_top_level() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), r#"{"https://q.io/v1/": {"auth": "bWU6c2VjcmV0"}}"#).unwrap();
    let source = Source::File { path: file.path().to_owned(), named: false, legacy: true };
    assert_eq!(user(source.find("q.io", "a").unwrap().login).as_deref(), Some("me:secret"));
}

#[test]
fn malformed_and_missing_files_are_distinguished() {
    let missing = |named| Source::File { path: "/no/such/file".into(), named, legacy: false };
    assert!(missing(false).find("x", "a").unwrap().login.is_none());
    assert!(missing(true).find("x", "a").unwrap_err().to_string().contains("no such file"));
    assert!(find_text("no json", "x", "a").is_err());
    assert!(find_text(r#"{"auths": {"x": {"auth": "*"}}}"#, "x", "a").is_err());
    assert_eq!(find_text("\n", "x", "a").unwrap(), None, "docker accepts an empty file");
}

fn paths(variables: &[(&str, &str)]) -> Vec<String> {
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    let all = sources(&|name| variables.get(name).map(Into::into)).unwrap();
    let show = |source: Source| match source {
        Source::File { path, .. } => path.display().to_string(),
        Source::Variable(text) => text,
    };
    all.into_iter().map(show).collect()
}

#[test]
fn files_are_looked_up_in_the_documented_order() {
    let uid = rustix::process::getuid().as_raw();
    let run = format!("/run/containers/{uid}/auth.json");
    let home = ["/h/.config/containers/auth.json", "/h/.docker/config.json", "/h/.dockercfg"];
    assert_eq!(paths(&[("HOME", "/h")]), [&[run.as_str()], &home[..]].concat());
    let all = [
        ("HOME", "/h"),
        ("XDG_RUNTIME_DIR", "/r"),
        ("XDG_CONFIG_HOME", "/c"),
        ("DOCKER_CONFIG", "/d"),
        ("DOCKER_AUTH_CONFIG", "{}"),
    ];
    let expected =
        ["/r/containers/auth.json", "/c/containers/auth.json", "{}", "/d/config.json", "/h/.dockercfg"];
    assert_eq!(paths(&all), expected);
    assert_eq!(paths(&[("HOME", "/h"), ("REGISTRY_AUTH_FILE", "/a.json")]), ["/a.json"]);
}

#[test]
fn a_missing_helper_is_named() {
    let text = r#"{"credHelpers": {"x": "no-such-helper", "y": "../evil"}}"#;
    assert!(find_text(text, "x", "a").unwrap_err().to_string().contains("no-such-helper"));
    assert!(find_text(text, "y", "a").unwrap_err().to_string().contains("slash"));
}

/// Runs this test again in a process whose `PATH` holds a helper, since a process has one `PATH` for all its threads.
fn with_helper(test: &str, script: &str) -> bool {
    if std::env::var_os("CLOISTER_TEST_HELPER").is_some() {
        return true;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("docker-credential-test");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("PATH", path)
        .env("CLOISTER_TEST_HELPER", "1")
        .status()
        .unwrap();
    assert!(status.success());
    false
}

#[test]
fn a_store_for_all_registries_is_queried_without_an_entry() {
    let script = r#"#!/bin/sh
read -r registry
case $registry in
  ecr.example) echo '{"ServerURL": "", "Username": "AWS", "Secret": "s"}' ;;
  acr.example) echo '{"ServerURL": "", "Username": "<token>", "Secret": "refresh"}' ;;
  https://index.docker.io/v1/) echo '{"Username": "hub", "Secret": "h"}' ;;
  broken.example) echo 'the cloud said no'; exit 1 ;;
  *) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"#;
    let name = "credentials::tests::a_store_for_all_registries_is_queried_without_an_entry";
    if !with_helper(name, script) {
        return;
    }
    let store = r#"{"credsStore": "test"}"#;
    let found = |registry| user(find_text(store, registry, "a").unwrap());
    assert_eq!(found("ecr.example").as_deref(), Some("AWS:s"));
    assert_eq!(found("acr.example").as_deref(), Some("identity refresh"));
    assert_eq!(found(HUB).as_deref(), Some("hub:h"));
    assert_eq!(found("unknown.example"), None);
    assert_eq!(found("broken.example"), None, "a public image can be read all the same");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), store).unwrap();
    let source = Source::File { path: file.path().to_owned(), named: true, legacy: false };
    let helper_error = source.find("broken.example", "a").unwrap().helper_error.unwrap();
    assert!(helper_error.to_string().contains("the cloud said no"), "{helper_error}");
    // A helper for this registry alone must succeed.
    let one = r#"{"credHelpers": {"broken.example": "test", "ecr.example": "test"}}"#;
    assert!(find_text(one, "broken.example", "a").is_err());
    assert_eq!(user(find_text(one, "ecr.example", "a").unwrap()).as_deref(), Some("AWS:s"));
}
