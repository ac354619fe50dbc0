//! The parts of a service's view beyond the image, and the checks that a program can start.

use super::super::build;
use super::super::image::{Arch, Image, ImageConfig};
use super::super::testing::Files;
use super::build::elf;
use crate::model::{File, Manifest};

fn files() -> Files {
    Files::default().file("/bin/app", 0o755, elf(62, None)).directory("/data")
}

fn config() -> ImageConfig {
    ImageConfig { entrypoint: vec!["/bin/app".to_owned()], ..ImageConfig::default() }
}

fn resolved(files: &Files, config: &ImageConfig, source: &str) -> Result<Manifest, String> {
    let image = Image { config, root: files, arch: Arch::X86_64 };
    let resolved = build("cloister.yaml", source.as_bytes(), &image).map_err(|report| report.to_string())?;
    Ok(resolved.manifest)
}

fn manifest(files: &Files, source: &str) -> Manifest {
    resolved(files, &config(), source).unwrap_or_else(|report| panic!("{report}"))
}

fn refused(files: &Files, source: &str, parts: &[&str]) {
    let report = resolved(files, &config(), source).expect_err("it must be refused");
    for part in parts {
        assert!(report.contains(part), "{part:?} is missing:\n{report}");
    }
}

fn names(files: &[File]) -> Vec<&str> {
    files.iter().map(|file| file.path.as_str()).collect()
}

const PLAIN: &str = "{version: 1, name: shop}";

#[test]
fn missing_network_files_are_added_as_by_an_engine() {
    let root = manifest(&files(), PLAIN).root;
    assert_eq!(names(&root.additions), ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]);
    let content = |number: usize| root.additions.get(number).map_or("", |file| &file.content);
    assert_eq!(content(0), "shop\n");
    assert!(content(1).contains("127.0.0.1\tlocalhost\n") && content(1).contains("::1\tlocalhost"));
    assert!(content(1).contains("127.0.0.1\tshop\n"));
    assert!(content(2).starts_with("nameserver "));
    let pinned = ["/dev", "/etc", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/proc", "/run"];
    assert!(root.pinned.starts_with(&pinned.map(str::to_owned)), "{:?}", root.pinned);
}

#[test]
fn network_files_of_the_image_are_kept_unless_empty() {
    let image = files()
        .file("/etc/hosts", 0o644, "10.0.0.1 mine\n")
        .file("/etc/hostname", 0o644, "")
        .link("/etc/resolv.conf", "/run/systemd/resolve/stub-resolv.conf");
    let root = manifest(&image, PLAIN).root;
    assert_eq!(names(&root.additions), ["/etc/hostname", "/run/systemd/resolve/stub-resolv.conf"]);
    let link = "/etc/resolv.conf".to_owned();
    assert!(root.pinned.contains(&link), "the link itself is pinned");
    let elsewhere = image.link("/etc/hostname", "/proc/sys/kernel/hostname");
    assert_eq!(manifest(&elsewhere, PLAIN).root.additions.len(), 1, "a link into /proc is left alone");
}

#[test]
fn hostname_is_set_unless_image_or_manifest_set_it() {
    let variable = |config: &ImageConfig, source: &str| {
        let manifest = resolved(&files(), config, source).unwrap();
        manifest.services[0].env.get("HOSTNAME").cloned().unwrap()
    };
    assert_eq!(variable(&config(), PLAIN), "shop");
    assert_eq!(variable(&config(), "{version: 1, service: {env: {HOSTNAME: mine}}}"), "mine");
    let image = ImageConfig { env: vec!["HOSTNAME=image".to_owned()], ..config() };
    assert_eq!(variable(&image, PLAIN), "image");
}

#[test]
fn a_file_over_a_link_is_mounted_at_the_links_target() {
    let image = files().link("/etc/resolv.conf", "/run/resolv.conf").link("/var/run", "/run");
    let source = "{version: 1, service: {files: {/etc/resolv.conf: a, /var/run/x/y: b, /tmp/z: c}}}";
    let manifest = manifest(&image, source);
    assert_eq!(names(&manifest.services[0].files), ["/run/resolv.conf", "/run/x/y", "/tmp/z"]);
    for pinned in ["/etc/resolv.conf", "/run/resolv.conf", "/var", "/var/run", "/run/x", "/run/x/y"] {
        assert!(manifest.root.pinned.iter().any(|path| path == pinned), "{pinned}");
    }
    assert!(
        !manifest.root.pinned.iter().any(|path| path.starts_with("/tmp/")),
        "private directories need no pins"
    );
}

#[test]
fn a_file_that_cannot_be_mounted_is_refused() {
    let image = files().link("/loop", "/loop").file("/etc/passwd", 0o644, "");
    let files_of = |path: &str| format!("{{version: 1, service: {{files: {{{path}: x}}}}}}");
    refused(&image, &files_of("/loop"), &["`/loop` cannot be mounted", "form a loop"]);
    refused(&image, &files_of("/etc/passwd/x"), &["`/etc/passwd` is not a directory"]);
    refused(&image, &files_of("/proc/version"), &["every service has its own `/proc`"]);
    refused(&image, &files_of("/tmp"), &["`/tmp` is a directory"]);
    let below =
        "{version: 1, services: {a: {files: {/cfg: x}}, b: {command: [/bin/app], files: {/cfg/b: y}}}}";
    refused(&image, below, &["`/cfg/b` needs a directory at `/cfg`, which is a file"]);
    let same = "{version: 1, service: {files: {/l: x, /m: y}}}";
    refused(&files().link("/l", "m"), same, &["resolves to `/m`, where another file is mounted"]);
}

#[test]
fn a_file_is_refused_if_another_service_could_unmount_it() {
    let source = |calls: &str| {
        format!(
            "version: 1\nservices:\n  a: {{files: {{/etc/a.conf: x}}}}\n  b: {{command: [/bin/app], capabilities: [sys_admin], allow_syscalls: [{calls}]}}\n"
        )
    };
    refused(
        &files(),
        &source("umount2"),
        &["`/etc/a.conf` cannot be protected from another service", "`b` has"],
    );
    assert_eq!(manifest(&files(), &source("ptrace")).services.len(), 2);
}

#[test]
fn mount_points_of_every_view_must_have_the_right_type() {
    refused(&files().file("/tmp", 0o644, ""), PLAIN, &["the image's `/tmp` is neither a directory"]);
    refused(&files().link("/dev", "/dev"), PLAIN, &["the image's `/dev` is neither a directory"]);
    refused(
        &files().directory("/run/cloister/initctl"),
        PLAIN,
        &["`/run/cloister/initctl` is neither a file"],
    );
    assert!(manifest(&files().link("/tmp", "var/tmp"), PLAIN).root.pinned.contains(&"/var/tmp".to_owned()));
}

#[test]
fn writable_paths_are_resolved_and_the_root_includes_them_all() {
    let writable = |image: &Files, list: &str| {
        let source = format!("{{version: 1, service: {{writable: {list}}}}}");
        manifest(image, &source).services[0].isolation.writable.clone()
    };
    let image = files().link("/var/data", "/data");
    assert_eq!(writable(&image, "[/var/data, /tmp, /dev/shm]"), Some(vec!["/data".to_owned()]));
    assert_eq!(writable(&image, "[]"), Some(vec![]));
    assert_eq!(writable(&image, "[/]"), None);
}

#[test]
fn writable_paths_are_pinned_against_other_services() {
    let image = files().directory("/data/deep").link("/var/data", "/data/deep");
    let pinned = |services: &str| {
        let root = manifest(&image, &format!("{{version: 1, services: {{{services}}}}}")).root;
        let places = ["/data", "/data/deep", "/var", "/var/data"].map(str::to_owned);
        places.map(|place| root.pinned.contains(&place))
    };
    let other = "b: {command: [/bin/app]}";
    assert_eq!(pinned(&format!("a: {{writable: [/var/data]}}, {other}")), [true; 4]);
    assert_eq!(pinned(&format!("a: {{writable: [/data]}}, {other}")), [true, false, false, false]);
    assert_eq!(pinned(&format!("a: {{writable: [/data, /]}}, {other}")), [false; 4], "it may write anywhere");
    assert_eq!(pinned("a: {writable: [/var/data]}"), [false; 4], "there is no other service");
}

#[test]
fn a_program_whose_capabilities_the_service_lacks_is_refused() {
    // As `setcap cap_net_bind_service=+ep` and `=+p` store them (capabilities(7), "File capability versioning").
    let stored = |effective: u8| [&[effective, 0, 0, 2, 0, 4, 0, 0], [0; 12].as_slice()].concat();
    let image = files().capable("/bin/app", &stored(1));
    refused(&image, PLAIN, &["`/bin/app` requires capabilities", "net_bind_service", "setcap -r /bin/app"]);
    let given = "{version: 1, service: {capabilities: [net_bind_service]}}";
    assert_eq!(manifest(&image, given).services.len(), 1);
    assert_eq!(manifest(&files().capable("/bin/app", &stored(0)), PLAIN).services.len(), 1);
    let other_root = [stored(1).as_slice(), &[1, 0, 0, 0]].concat();
    let other_root = [&[1, 0, 0, 3], other_root.get(4..).unwrap()].concat();
    assert_eq!(manifest(&files().capable("/bin/app", &other_root), PLAIN).services.len(), 1);
    let script = files().file("/run.sh", 0o755, "#!/bin/app\n").capable("/bin/app", &stored(1));
    refused(&script, "{version: 1, service: {command: [/run.sh]}}", &["`/bin/app` requires capabilities"]);
}

#[test]
fn arguments_and_variables_over_kernel_limits_are_refused() {
    let long = "x".repeat(131_070);
    let variable = |name: &str| format!("{{version: 1, service: {{env: {{{name}: {long}}}}}}}");
    refused(
        &files(),
        &variable("A"),
        &["variable `A` is 131072 bytes long, including its name", "`files` or `sealed`"],
    );
    let argument = format!("{{version: 1, service: {{args: [{long}xx]}}}}");
    refused(&files(), &argument, &["argument 1 is 131072 bytes long"]);
    let image = ImageConfig { env: vec![format!("B={long}")], ..config() };
    let report = resolved(&files(), &image, PLAIN).unwrap_err();
    assert!(report.contains("the image's variable `B` is 131072 bytes"), "{report}");
    let image = ImageConfig { cmd: vec!["a\0b".to_owned()], ..config() };
    assert!(resolved(&files(), &image, PLAIN).unwrap_err().contains("NUL byte"));
}

#[test]
fn a_file_of_the_manifest_cannot_be_executed() {
    let image = files().file("/run.sh", 0o755, "#!/bin/app\n").link("/entry", "run.sh");
    for command in ["/run.sh", "/entry", "/new.sh"] {
        let source = format!(
            "{{version: 1, service: {{command: [{command}], files: {{/run.sh: {{content: x, mode: 0755}}, /new.sh: y}}}}}}"
        );
        refused(&image, &source, &[&format!("`{command}` is in `files`"), "cannot be executed"]);
    }
    let interpreter = "{version: 1, service: {command: [/run.sh], files: {/bin/app: x}}}";
    refused(&image, interpreter, &["`/bin/app` is in `files`"]);
}

#[test]
fn an_open_file_limit_too_low_for_any_program_is_refused() {
    let files_limit = |count: u32, sealed: &str| {
        format!("{{version: 1, service: {{limits: {{open_files: {count}}}, sealed: {{{sealed}}}}}}}")
    };
    refused(&files(), &files_limit(7, ""), &["no program can start with 7 open files", "at least 8"]);
    refused(&files(), &files_limit(8, "A: b"), &["at least 9"]);
    assert_eq!(manifest(&files(), &files_limit(9, "A: b")).services.len(), 1);
}

#[test]
fn an_interpreter_path_that_the_kernel_would_truncate_is_refused() {
    let folder = format!("/{}", "d".repeat(250));
    let image = files().file(&format!("{folder}/sh"), 0o755, elf(62, None)).file(
        "/run.sh",
        0o755,
        format!("#!{folder}/sh\n"),
    );
    refused(&image, "{version: 1, service: {command: [/run.sh]}}", &["interpreter path is longer than 253"]);
}

#[test]
fn ids_with_a_special_meaning_to_the_kernel_are_refused() {
    for user in ["4294967295", "1:4294967294"] {
        let source = format!("{{version: 1, service: {{user: \"{user}\"}}}}");
        refused(&files(), &source, &["the largest id is 2147483647"]);
    }
}
