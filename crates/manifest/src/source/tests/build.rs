//! Valid manifests and their results.

use super::super::image::{Arch, Healthcheck, Image, ImageConfig};
use super::super::testing::Files;
use super::super::{Resolved, build, parse, resolve};
use crate::model::{Check, Kind, Manifest, Policy, Ready};
use crate::platform::Platform;

/// A small web server's image: its own user, a static program, a Python that is found through links.
pub(super) fn files() -> Files {
    let program = elf(62, None);
    Files::default()
        .file(
            "/etc/passwd",
            0o644,
            "root:x:0:0::/root:/bin/sh\nnginx:x:101:102::/var/cache/nginx:/bin/false\n",
        )
        .file("/etc/group", 0o644, "root:x:0:\nnginx:x:102:\nwww-data:x:33:\nssl:x:40:nginx\n")
        .file("/usr/sbin/nginx", 0o755, program.clone())
        .file("/usr/bin/python3.11", 0o755, program.clone())
        .link("/usr/bin/python3", "python3.11")
        .link("/bin", "usr/bin")
        .file("/usr/bin/env", 0o755, program.clone())
        .file("/sbin/init", 0o755, program.clone())
        .file("/usr/bin/sh", 0o755, program)
        .file("/srv/app.py", 0o755, "#!/usr/bin/env python3\n")
        .file("/srv/data.txt", 0o644, "not a program")
        .file("/opt/arm", 0o755, elf(183, None))
        .file("/opt/dynamic", 0o755, elf(62, Some("/lib64/ld-linux-x86-64.so.2")))
        .file("/opt/private", 0o700, "#!/bin/sh\n")
        .file("/opt/windows", 0o755, "#!/bin/sh\r\n")
        .file("/opt/node.js", 0o755, "#!/usr/bin/env node\n")
        .file("/opt/text", 0o755, "hello")
        .directory("/var/lib/data")
        .directory("/tmp/work")
        .link("/scratch", "/tmp/work")
        .file("/tmp/tool", 0o755, "#!/bin/sh\n")
        .file("/locked/tool", 0o755, "#!/bin/sh\n")
        .chmod("/locked", 0o700)
}

/// The headers of a 64-bit program, with or without a dynamic loader.
pub(super) fn elf(machine: u16, loader: Option<&str>) -> Vec<u8> {
    let mut bytes = vec![0_u8; 64];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
    bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
    bytes[56..58].copy_from_slice(&u16::from(loader.is_some()).to_le_bytes());
    if let Some(loader) = loader {
        let mut header = [0_u8; 56];
        header[..4].copy_from_slice(&3_u32.to_le_bytes());
        header[8..16].copy_from_slice(&120_u64.to_le_bytes());
        header[32..40].copy_from_slice(&u64::try_from(loader.len() + 1).unwrap().to_le_bytes());
        bytes.extend(header);
        bytes.extend(loader.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// That image's configuration.
pub(super) fn config() -> ImageConfig {
    ImageConfig {
        entrypoint: vec!["nginx".into()],
        cmd: vec!["-g".into(), "daemon off;".into()],
        env: vec!["PATH=/usr/sbin:/usr/bin".into(), "LANG=C".into()],
        user: "nginx".into(),
        working_dir: "/srv".into(),
        stop_signal: "SIGQUIT".into(),
        exposed_ports: [("80/tcp", ()), ("53/udp", ()), ("443", ())]
            .map(|(port, ())| (port.to_owned(), serde_json::json!({})))
            .into(),
        ..ImageConfig::default()
    }
}

fn manifest(source: &str) -> Manifest {
    resolved(source, &config()).manifest
}

fn resolved(source: &str, config: &ImageConfig) -> Resolved {
    let files = files();
    let image = Image { config, root: &files, arch: Arch::X86_64 };
    match build("cloister.yaml", source.as_bytes(), &image) {
        Ok(resolved) => resolved,
        Err(report) => panic!("{report}"),
    }
}

#[test]
fn a_minimal_manifest_takes_everything_from_the_image() {
    let manifest = manifest("version: 1\n");
    let [service] = manifest.services.as_slice() else { panic!() };
    assert_eq!((manifest.name.as_str(), service.name.as_str()), ("app", "app"));
    assert_eq!(service.argv, ["/usr/sbin/nginx", "-g", "daemon off;"]);
    assert_eq!((service.uid, service.gid, service.groups.as_slice()), (101, 102, [40].as_slice()));
    assert_eq!((service.cwd.as_str(), service.stop_signal), ("/srv", 3));
    let env: Vec<_> = service.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(env, ["HOME=/var/cache/nginx", "HOSTNAME=app", "LANG=C", "PATH=/usr/sbin:/usr/bin"]);
    let ports: Vec<_> = manifest.ingress.iter().map(|ingress| (ingress.port, ingress.target)).collect();
    assert_eq!(ports, [(80, 80), (443, 443)]);
    assert_eq!(service.ready, Ready::Started, "nothing may be listening on an exposed port");
    assert!(service.critical);
}

#[test]
fn one_service_can_be_named_in_one_line() {
    let manifest = manifest("version: 1\nservices: {web: }\ningress: [{port: 8080, target: 80}]\n");
    assert_eq!((manifest.name.as_str(), manifest.services[0].name.as_str()), ("web", "web"));
    assert_eq!(manifest.services[0].ready, Ready::Tcp(80));
}

#[test]
fn every_field_is_translated_into_the_model() {
    let manifest = manifest(include_str!("../../../testdata/full.yaml"));
    let golden = include_str!("../../../testdata/full.json");
    let found = serde_json::to_string_pretty(&manifest).unwrap();
    super::golden::compare("full.json", golden, &(found + "\n"));
}

#[test]
fn the_arrangement_of_the_file_does_not_change_the_measurement() {
    let one = "version: 1\nservices:\n  a: {command: [sh]}\n  b: {command: [nginx], after: [a, c]}\n  c: {command: [env]}\n";
    let other = "services:\n  c: {command: [env]}\n  b: {after: [c, a], command: [nginx]}\n  a: {command: [sh]}\nversion: 1\n";
    assert_eq!(manifest(one).to_json().unwrap(), manifest(other).to_json().unwrap());
    let names: Vec<_> = manifest(one).services.into_iter().map(|service| service.name).collect();
    assert_eq!(names, ["a", "c", "b"]);
}

#[test]
fn without_a_list_every_platform_is_allowed_and_the_order_of_a_list_does_not_matter() {
    let platforms = |line: &str| manifest(&format!("version: 1\n{line}")).platforms;
    assert_eq!(platforms(""), Platform::ALL);
    let expected = [Platform::Nitro, Platform::Snp];
    assert_eq!(platforms("platforms: [snp, nitro]\n"), expected);
    assert_eq!(platforms("platforms: [nitro, snp]\n"), expected);
}

#[test]
fn arguments_keep_the_entrypoint_and_a_command_replaces_both() {
    let argv =
        |service: &str| manifest(&format!("version: 1\nservice: {service}\n")).services[0].argv.clone();
    assert_eq!(argv("{args: [-t]}"), ["/usr/sbin/nginx", "-t"]);
    assert_eq!(argv("{command: [python3]}"), ["/usr/bin/python3"]);
    assert_eq!(argv("{command: [sh, -c], args: [echo 1]}"), ["/usr/bin/sh", "-c", "echo 1"]);
    assert_eq!(argv("{command: [./app.py]}"), ["/srv/app.py"]);
    assert_eq!(argv("{command: [nginx, 80, true, 1.10]}"), ["/usr/sbin/nginx", "80", "true", "1.10"]);
}

#[test]
fn a_job_is_not_restarted_by_default() {
    let manifest = manifest("version: 1\nservice: {kind: job, live: }\n".replace(", live: ", "").as_str());
    let service = &manifest.services[0];
    assert_eq!((service.kind, service.restart.policy), (Kind::Job, Policy::Never));
    assert_eq!(service.ready, Ready::Started);
}

#[test]
fn the_total_stop_timeout_is_that_of_the_slowest_chain() {
    let source = "version: 1\nservices:\n  a: {command: [sh], stop_timeout: 20s}\n  b: {command: [sh], after: [a]}\n  c: {command: [sh]}\n";
    assert_eq!(manifest(source).stop_timeout_ms, 35_000);
}

#[test]
fn a_watchdog_sets_the_interval() {
    let manifest = manifest("version: 1\nservice: {ready: notify, live: {watchdog: 7s}}\n");
    let live = manifest.services[0].live.clone().unwrap();
    assert_eq!((live.check, live.interval_ms), (Check::Watchdog, 7000));
}

#[test]
fn checking_and_resolving_can_be_two_steps() {
    let checked =
        parse("cloister.yaml", b"version: 1\nservices: {b: {after: [a]}, a: {command: [sh]}}\n").unwrap();
    assert_eq!(checked.services().collect::<Vec<_>>(), ["a", "b"]);
    let (config, files) = (config(), files());
    let image = Image { config: &config, root: &files, arch: Arch::X86_64 };
    assert_eq!(resolve(&checked, &image).unwrap().manifest.services.len(), 2);
}

#[test]
fn docker_capabilities_are_listed_by_name_in_the_measured_manifest() {
    let capabilities = |text: &str| {
        manifest(&format!("version: 1\nservice: {text}\n")).services[0].isolation.capabilities.clone()
    };
    let docker = capabilities("{capabilities: docker, user: root}");
    assert_eq!(docker.len(), 12);
    assert!(docker.contains(&"setuid".to_owned()) && !docker.contains(&"mknod".to_owned()));
    assert_eq!(capabilities("{capabilities: [docker, ipc_lock], user: root}").len(), 13);
    // The image's user is not root: docker would grant it none.
    assert_eq!(capabilities("{capabilities: docker}"), Vec::<String>::new());
    assert_eq!(capabilities("{capabilities: [docker, ipc_lock]}"), ["ipc_lock"]);
    // Root with docker's capabilities bypasses permission bits.
    assert!(!capabilities("{capabilities: docker, user: root, command: [/locked/tool]}").is_empty());
}

#[test]
fn a_note_on_running_as_root_is_shown_until_the_manifest_decides() {
    let notes = |config: &ImageConfig, service: &str| {
        resolved(&format!("version: 1\nservices: {{web: {service}}}\n"), config).notes
    };
    let root = ImageConfig { user: String::new(), ..config() };
    let [note] = <[String; 1]>::try_from(notes(&root, "{}")).unwrap();
    assert!(note.contains("add `capabilities: docker` under `web:` in `services:`"), "{note}");
    for (source, line) in [
        ("version: 1\n", "add `service: {capabilities: docker}`"),
        ("version: 1\nservice: {restart: never}\n", "add `capabilities: docker` under `service:`"),
    ] {
        let [note] = <[String; 1]>::try_from(resolved(source, &root).notes).unwrap();
        assert!(note.contains(line), "{note}");
    }
    let several = "version: 1\nservices: {a: {command: [sh]}, b: {command: [env]}, c: {user: root, command: [sh, b]}, d: {}}\n";
    let [note] = <[String; 1]>::try_from(resolved(several, &root).notes).unwrap();
    assert!(note.starts_with("services `a`, `b` and `d` run as root"), "{note}");
    for decided in ["{capabilities: docker}", "{capabilities: []}", "{user: nginx}", "{user: root}"] {
        assert_eq!(notes(&root, decided), Vec::<String>::new(), "{decided}");
    }
    assert_eq!(notes(&config(), "{}"), Vec::<String>::new(), "its image has a user");
    let [note] = <[String; 1]>::try_from(notes(&config(), "{capabilities: docker}")).unwrap();
    assert!(note.contains("user 101"), "{note}");
}

#[test]
fn a_note_on_a_healthcheck_gives_the_equivalent_line_until_the_manifest_has_one() {
    let notes = |words: &[&str], source: &str| {
        let healthcheck = Healthcheck { test: words.iter().map(|word| (*word).to_owned()).collect() };
        let one_port = [("6379/tcp".to_owned(), serde_json::json!({}))].into();
        resolved(source, &ImageConfig { healthcheck, exposed_ports: one_port, ..config() }).notes
    };
    let curl = ["CMD-SHELL", "curl -f http://localhost:8080/up || exit 1"];
    let expected = "the image's HEALTHCHECK is not run (`curl -f http://localhost:8080/up || exit 1`). To make the same \
        check of service `app`, add `service: {live: {http: {port: 8080, path: /up}}}`; \
        `ready: {http: {port: 8080, path: /up}}` there makes its start wait for it";
    assert_eq!(notes(&curl, "version: 1\n"), [expected]);
    let [note] =
        <[String; 1]>::try_from(notes(&["CMD", "redis-cli", "ping"], "version: 1\nservices: {db: }\n"))
            .unwrap();
    assert!(
        note.ends_with("accepts connections: add `live: {tcp: 6379}` under `db:` in `services:`"),
        "{note}"
    );
    for answered in [
        "version: 1\nservice: {live: {tcp: 6379}}\n",
        "version: 1\nservice: {kind: job}\n",
        "version: 1\nservices: {a: {command: [sh]}, b: {command: [env]}}\n",
    ] {
        assert_eq!(notes(&curl, answered), Vec::<String>::new(), "{answered}");
    }
    assert_eq!(notes(&["NONE"], "version: 1\n"), Vec::<String>::new());
    // The line that the note suggests is valid, and has that meaning.
    let followed = manifest("version: 1\nservice: {live: {http: {port: 8080, path: /up}}}\n");
    let check = followed.services[0].live.clone().map(|live| live.check);
    assert!(matches!(check, Some(Check::Http { .. })), "{check:?}");
}

#[test]
fn a_note_on_process_1_gives_the_line_to_add() {
    let notes = |service: &str| resolved(&format!("version: 1\nservice: {service}\n"), &config()).notes;
    let [note] = <[String; 1]>::try_from(notes("{command: [/sbin/init]}")).unwrap();
    assert!(note.contains("add `first_process: service` under `service:`"), "{note}");
    for decided in [
        "{command: [/sbin/init], first_process: service}",
        "{command: [/sbin/init], first_process: cloister}",
    ] {
        assert_eq!(notes(decided), Vec::<String>::new(), "{decided}");
    }
}

#[test]
fn a_variable_without_a_value_is_unset_as_in_a_container() {
    let image = ImageConfig {
        env: ["A=1", "B=2", "A", "NEVER", "=x", "C==", "D="].map(str::to_owned).into(),
        ..config()
    };
    let manifest = resolved(
        "version: 1\nservice: {user: root}\n",
        &ImageConfig { cmd: vec![], entrypoint: vec!["/usr/sbin/nginx".into()], ..image },
    )
    .manifest;
    let env: Vec<_> =
        manifest.services[0].env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(&env[..3], ["B=2", "C==", "D="]);
    assert_eq!(env.len(), 6, "{env:?} also has PATH, HOME and HOSTNAME");
}

#[test]
fn a_working_directory_below_tmp_or_shm_need_not_exist() {
    let cwd = |path: &str| {
        let image = ImageConfig { working_dir: path.to_owned(), ..config() };
        resolved("version: 1\n", &image).manifest.services[0].cwd.clone()
    };
    assert_eq!(cwd("/tmp/work"), "/tmp/work");
    assert_eq!(cwd("/tmp/not/in/the/image"), "/tmp/not/in/the/image");
    assert_eq!(cwd("dev/shm/x/"), "/dev/shm/x");
    // Created at the link's target: an image's own link may point anywhere.
    assert_eq!(cwd("/scratch"), "/tmp/work");
}
