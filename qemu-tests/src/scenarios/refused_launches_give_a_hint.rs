//! What cannot be launched is refused before anything boots, with the cause and the next step.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;

use crate::guest::{no_guest, serve_http};
use crate::lab::path_str;
use crate::scenario::{Failure, expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

const ONE_SERVICE: &str =
    "{version: 1, services: {web: {command: [PROBE], ready: {tcp: 8080}}}, ingress: [8080]}";

/// A port that is in use.
pub(super) const BUSY_PORT: Scenario =
    Scenario { name: "a_busy_port_is_reported_before_boot", host: busy_port, guest: no_guest };

/// An image that does not exist.
pub(super) const MISSING_IMAGE: Scenario =
    Scenario { name: "a_missing_image_is_named", host: missing_image, guest: no_guest };

/// Too little memory.
pub(super) const LITTLE_MEMORY: Scenario = Scenario {
    name: "too_little_memory_is_refused_with_the_number_needed",
    host: little_memory,
    guest: answering,
};

/// A machine type that the backend lacks.
pub(super) const OTHER_MACHINE: Scenario = Scenario {
    name: "a_machine_is_refused_where_the_backend_has_only_one",
    host: other_machine,
    guest: no_guest,
};

/// A platform that the manifest does not allow.
pub(super) const OTHER_PLATFORM: Scenario = Scenario {
    name: "an_image_for_another_platform_is_refused_before_boot",
    host: other_platform,
    guest: no_guest,
};

/// A host without QEMU.
pub(super) const MISSING_QEMU: Scenario = Scenario {
    name: "a_missing_qemu_is_named_with_the_install_command",
    host: missing_qemu,
    guest: no_guest,
};

/// An installation without its kernel.
pub(super) const MISSING_KERNEL: Scenario =
    Scenario { name: "a_missing_kernel_is_named_when_building", host: missing_kernel, guest: no_guest };

/// A manifest with errors.
pub(super) const WRONG_MANIFEST: Scenario = Scenario {
    name: "a_wrong_manifest_is_refused_with_every_error_its_line_and_a_hint",
    host: wrong_manifest,
    guest: no_guest,
};

/// A root with nothing to run.
pub(super) const NO_COMMAND: Scenario = Scenario {
    name: "an_image_without_a_command_is_refused_when_building",
    host: no_command,
    guest: no_guest,
};

fn busy_port(lab: &mut Lab) -> Outcome {
    let image = lab.image(ONE_SERVICE)?;
    let taken = TcpListener::bind(("127.0.0.1", 0))?;
    let publish = format!("127.0.0.1:{}:8080", taken.local_addr()?.port());
    let run = lab.sleeve(&["run", path_str(&image)?, "--publish", &publish]).finish()?;
    run.expect_code(125)?;
    expect_in(&run.stderr, "hint:", "the message")?;
    expect_in(&run.stderr, &taken.local_addr()?.port().to_string(), "the message")?;
    nothing_runs(lab)
}

fn missing_image(lab: &mut Lab) -> Outcome {
    let run = lab.sleeve(&["run", "no-such.cloister"]).finish()?;
    run.expect_code(125)?;
    expect_in(&run.stderr, "no-such.cloister", "the message")?;
    expect_in(&run.stderr, "hint:", "the message")
}

fn little_memory(lab: &mut Lab) -> Outcome {
    let image = lab.image(ONE_SERVICE)?;
    let needed = refused_for_memory(lab, &image, 16)?;
    let again = refused_for_memory(lab, &image, needed.saturating_sub(1))?;
    expect_eq(&again, &needed, "the number needed, with one less given")?;
    nothing_runs(lab)?;
    let mut web = lab.run(&image, &["--memory", &format!("{needed}MiB")])?;
    web.wait_ready()?;
    web.stop()?;
    Ok(())
}

/// Runs with this many MiB, expects a refusal, and returns how many the hint names.
fn refused_for_memory(lab: &Lab, image: &Path, asked: u64) -> Result<u64, Failure> {
    let run = lab.sleeve(&["run", path_str(image)?, "--memory", &format!("{asked}MiB")]).finish()?;
    run.expect_code(125)?;
    let named = run.stderr.split_once("hint: --memory ").and_then(|(_, hint)| hint.split_once("MiB"));
    let number = named.and_then(|(number, _)| number.parse().ok());
    number.ok_or_else(|| Failure::failed(format_args!("the hint has no number of MiB:\n{}", run.stderr)))
}

fn answering(_args: &[String]) -> ExitCode {
    let served = serve_http(8080, str::to_owned);
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn other_machine(lab: &mut Lab) -> Outcome {
    let image = lab.image(ONE_SERVICE)?;
    let args = ["run", path_str(&image)?, "--backend", "qemu-nitro", "--machine", "q35"];
    let run = lab.sleeve(&args).finish()?;
    run.expect_code(125)?;
    expect_in(&run.stderr, "the backend qemu-nitro has only one machine type", "the message")?;
    expect_in(&run.stderr, "hint: omit --machine", "the message")?;
    nothing_runs(lab)
}

fn other_platform(lab: &mut Lab) -> Outcome {
    let image = lab.image("{version: 1, platforms: [tdx, virtual], services: {web: {command: [PROBE]}}}")?;
    let run = lab.sleeve(&["run", path_str(&image)?, "--backend", "qemu-nitro"]).finish()?;
    run.expect_code(125)?;
    let reason = "does not run on qemu-nitro: its machines are of the platform nitro";
    for part in [reason, "allows only tdx and virtual", "hint: use --backend qemu"] {
        expect_in(&run.stderr, part, "the message")?;
    }
    let manifest =
        lab.manifest("{version: 1, platforms: [tdx, snp], services: {web: {command: [PROBE]}}}")?;
    let root = lab.probe_root()?;
    let image = lab.build(&root, &manifest)?;
    let run = lab.sleeve(&["run", path_str(&image)?]).finish()?;
    run.expect_code(125)?;
    for part in ["allows only tdx and snp", "hint: no backend", "add virtual to `platforms`"] {
        expect_in(&run.stderr, part, "the message")?;
    }
    nothing_runs(lab)?;
    let (from, eif) = (format!("dir:{}", root.display()), lab.folder().join("app.eif"));
    let build = ["build", "--image", &from, "--manifest", path_str(&manifest)?, "--eif", path_str(&eif)?];
    let build =
        lab.sleeve(&[&build, ["-o", path_str(&lab.folder().join("never.cloister"))?].as_slice()].concat());
    let refused = build.finish()?;
    refused.expect_code(125)?;
    expect_in(&refused.stderr, "AWS Nitro", "the message")?;
    expect_in(&refused.stderr, "hint: add nitro to `platforms`", "the message")?;
    expect(!eif.exists(), "a refused build leaves no file")
}

fn missing_qemu(lab: &mut Lab) -> Outcome {
    let image = lab.image(ONE_SERVICE)?;
    let empty = lab.folder().join("empty");
    fs::create_dir(&empty)?;
    let run = lab.sleeve(&["run", path_str(&image)?]).env("PATH", path_str(&empty)?).finish()?;
    run.expect_code(125)?;
    expect_in(&run.stderr, "qemu-system-x86", "the message")?;
    expect_in(&run.stderr, "hint:", "the message")?;
    nothing_runs(lab)
}

fn missing_kernel(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    let manifest = lab.manifest(ONE_SERVICE)?;
    let os = lab.folder().join("os");
    fs::create_dir(&os)?;
    let shipped = lab.built().dist.join("share/cloister/os").join(std::env::consts::ARCH);
    for name in ["os.json", "os.cpio.zst"] {
        fs::copy(shipped.join(name), os.join(name))?;
    }
    let kernel = os.join("kernel");
    let from = format!("dir:{}", root.display());
    let image = lab.folder().join("app.cloister");
    let build = lab
        .sleeve(&["build", "--image", &from, "--manifest", path_str(&manifest)?, "-o", path_str(&image)?])
        .env("CLOISTER_OS", path_str(&os)?)
        .finish()?;
    build.expect_code(125)?;
    expect_in(&build.stderr, &format!("{} cannot be read", kernel.display()), "the message")?;
    expect_in(&build.stderr, "hint: build the Cloister OS with ./scripts/build", "the message")?;
    let doctor = lab.sleeve(&["doctor"]).env("CLOISTER_OS", path_str(&os)?).finish()?;
    doctor.expect_code(125)?;
    expect_in(&doctor.stdout, &format!("{} cannot be read", kernel.display()), "doctor")?;
    expect_in(&doctor.stdout, "to fix: ./scripts/build", "doctor")?;
    expect(!image.exists(), "a failed build leaves no image")
}

fn wrong_manifest(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    let wrong =
        "version: 1\nservices:\n  web:\n    comand: [/probe]\n    restart: sometimes\ningress: [80, 80]\n";
    let manifest = lab.manifest(wrong)?;
    let from = format!("dir:{}", root.display());
    let image = lab.folder().join("app.cloister");
    let build = ["build", "--image", &from, "--manifest", path_str(&manifest)?, "-o", path_str(&image)?];
    for args in [build.as_slice(), &["check", path_str(&manifest)?]] {
        let refused = lab.sleeve(args).finish()?;
        refused.expect_code(125)?;
        for part in ["4:5", "comand", "5:14", "sometimes", "6:15", "hint:"] {
            expect_in(&refused.stderr, part, "the message")?;
        }
        expect_in(&refused.stderr, path_str(&manifest)?, "the message")?;
    }
    expect(!image.exists(), "a failed build leaves no image")
}

fn no_command(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    let manifest = lab.manifest("{version: 1, services: {web: {}}}")?;
    let from = format!("dir:{}", root.display());
    let image = lab.folder().join("app.cloister");
    let build = lab
        .sleeve(&["build", "--image", &from, "--manifest", path_str(&manifest)?, "-o", path_str(&image)?])
        .finish()?;
    build.expect_code(125)?;
    expect_in(&build.stderr, "command", "the message")?;
    expect_in(&build.stderr, "hint:", "the message")
}

fn nothing_runs(lab: &Lab) -> Outcome {
    let ps = lab.sleeve(&["ps", "--json"]).finish()?;
    ps.expect_code(0)?;
    let listed = ps.json()?;
    let running = listed.as_array().is_none_or(|all| {
        all.iter().any(|one| one.get("alive").and_then(serde_json::Value::as_bool) == Some(true))
    });
    expect(!running, format_args!("ps shows a running enclave: {}", ps.stdout))
}
