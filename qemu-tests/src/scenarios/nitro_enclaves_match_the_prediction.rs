//! What AWS Nitro would boot, booted on QEMU's `nitro-enclave` machine: it answers, its exit code is reported, and its security
//! module reports the values predicted before the launch.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::Value;

use crate::guest::{no_guest, serve_http};
use crate::lab::{BUILD_LIMIT, path_str};
use crate::scenario::{Failure, expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The file.
pub(super) const FILE: Scenario =
    Scenario { name: "an_enclave_image_file_boots_and_answers_http", host: file, guest: serve };

/// Three applications.
pub(super) const APPLICATIONS: Scenario = Scenario {
    name: "the_security_module_reports_the_predicted_registers",
    host: applications,
    guest: serve,
};

/// One changed byte.
pub(super) const BYTE: Scenario =
    Scenario { name: "one_changed_byte_changes_only_the_application_registers", host: byte, guest: serve };

/// Another command line.
pub(super) const COMMAND_LINE: Scenario = Scenario {
    name: "another_command_line_changes_only_the_system_registers",
    host: command_line,
    guest: serve,
};

/// A signature.
pub(super) const SIGNED: Scenario =
    Scenario { name: "a_signed_enclave_reports_its_signer", host: signed, guest: serve };

/// An exit code.
pub(super) const EXIT_CODE: Scenario =
    Scenario { name: "the_exit_code_of_a_nitro_enclave_reaches_the_caller", host: exit_code, guest: fails };

/// A file damaged in transit.
pub(super) const DAMAGED: Scenario =
    Scenario { name: "a_damaged_enclave_image_file_is_refused_before_boot", host: damaged, guest: no_guest };

const WEB: &str = "{version: 1, services: {web: {command: [PROBE], ready: {tcp: 8080}}}, ingress: [{port: 80, service: web, target: 8080}]}";

/// PCR16 at the end of the boot: SHA-384 over 48 zeros and the event (docs/measurements.md).
const BOOT_DONE: &str =
    "926da6fdb43e503e03e620270893edc4f3e860722b580a5ed8af5dea3fd216b504322752210a7854de36c43072999853";

/// Registers by their number.
type Registers = BTreeMap<u64, String>;

fn file(lab: &mut Lab) -> Outcome {
    let (image, _) = probe_image(lab, &[])?;
    let eif = image.with_extension("eif");
    let explained = lab.sleeve(&["inspect", path_str(&eif)?]).finish()?;
    explained.expect_code(0)?;
    for part in ["kernel", "command line", "ramdisk", "PCR0", "not measured", "signature"] {
        expect_in(&explained.stdout, part, "host-sleeve inspect app.eif")?;
    }
    let port = lab.free_port()?;
    let mut web = lab.run(&eif, &["--publish", &format!("127.0.0.1:{port}:80")])?;
    web.wait_ready()?;
    let answer = web.get(port, "/hello")?;
    expect_eq(&answer.body.as_str(), &"you asked for /hello", "the answer")?;
    let ps = web.command(&["ps"])?;
    expect_in(&ps.stdout, "ready", "host-sleeve ps")?;
    let inspected = web.command(&["inspect", "web"])?;
    expect_in(&inspected.stdout, "as predicted", "host-sleeve inspect web")?;
    expect(!inspected.stdout.contains("NOT AS"), format_args!("registers differ:\n{}", inspected.stdout))?;
    // The probe does not catch SIGTERM: 128 plus its number, as on every backend.
    web.stop()?.expect_code(143)
}

fn applications(lab: &mut Lab) -> Outcome {
    let (probe, _) = probe_image(lab, &[])?;
    let redis = format!("oci:{}", lab.input("redis")?);
    let redis = lab.build_from(&redis, "{version: 1, services: {cache: {ready: {tcp: 6379}}}}")?;
    let nginx = format!("docker-archive:{}", lab.input("nginx")?);
    let nginx = lab.build_from(
        &nginx,
        "{version: 1, services: {web: {ready: {tcp: 80}, capabilities: [chown, setuid, setgid, net_bind_service]}}}",
    )?;
    let mut systems = Vec::new();
    for image in [probe, redis, nginx] {
        let registers = reported(lab, &image)?;
        systems.push(registers.get(&1).cloned().unwrap_or_default());
    }
    systems.dedup();
    expect_eq(&systems.len(), &1, "distinct values of PCR1 among three applications of a release")
}

fn byte(lab: &mut Lab) -> Outcome {
    let (first, root) = probe_image(lab, &[])?;
    fs::write(root.join("etc/hostname"), "enclavE")?;
    let second = lab.folder().join("second.cloister");
    build(lab, &root, &second, &[], None)?;
    let (first, second) = (reported(lab, &first)?, reported(lab, &second)?);
    expect_eq(&differing(&first, &second), &vec![0, 2], "the registers that one byte changes")
}

fn command_line(lab: &mut Lab) -> Outcome {
    let (first, root) = probe_image(lab, &[])?;
    let os = lab.folder().join("os");
    copy_release(lab, &os)?;
    let record = os.join("os.json");
    let text = fs::read_to_string(&record)?;
    let other = text.replace("\"reboot=k ", "\"loglevel=3 reboot=k ");
    expect(text != other, "the release's record contains Nitro's command line")?;
    fs::write(&record, other)?;
    let second = lab.folder().join("second.cloister");
    build(lab, &root, &second, &[], Some(&os))?;
    let (first, second) = (reported(lab, &first)?, reported(lab, &second)?);
    expect_eq(&differing(&first, &second), &vec![0, 1], "the registers that a command line changes")
}

fn signed(lab: &mut Lab) -> Outcome {
    let (key, certificate) = (lab.folder().join("key.pem"), lab.folder().join("certificate.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-384",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=example", "-keyout", path_str(&key)?, "-out", path_str(&certificate)?])
        .output()?;
    expect(made.status.success(), format_args!("openssl: {}", String::from_utf8_lossy(&made.stderr)))?;
    let sign = ["--sign-key", path_str(&key)?, "--sign-certificate", path_str(&certificate)?];
    let (image, _) = probe_image(lab, &sign)?;
    let eif = image.with_extension("eif");
    let explained = lab.sleeve(&["inspect", path_str(&eif)?]).finish()?;
    expect_in(&explained.stdout, "CN=example", "host-sleeve inspect of a signed file")?;
    let (from_file, from_image) = (reported(lab, &eif)?, reported(lab, &image)?);
    expect_eq(&from_file, &from_image, "the registers of the file and of its image")?;
    let signer = from_file.get(&8).cloned().unwrap_or_default();
    expect(signer.contains(|digit| digit != '0'), "PCR8 is not zero")
}

fn exit_code(lab: &mut Lab) -> Outcome {
    let (image, _) =
        probe_image_of(lab, "{version: 1, services: {web: {command: [PROBE], restart: never}}}", &[])?;
    let mut web = lab.run(&image, &["--backend", "qemu-nitro"])?;
    web.finish()?.expect_code(42)?;
    let logs = lab.sleeve(&["logs", "web"]).finish()?;
    expect_in(&logs.stdout, "exiting with 42", "host-sleeve logs of a terminated Nitro enclave")
}

fn damaged(lab: &mut Lab) -> Outcome {
    let (image, _) = probe_image(lab, &[])?;
    let eif = image.with_extension("eif");
    let mut bytes = fs::read(&eif)?;
    if let Some(byte) = bytes.last_mut() {
        *byte ^= 1;
    }
    fs::write(&eif, bytes)?;
    let run = lab.sleeve(&["run", path_str(&eif)?]).finish()?;
    run.expect_code(125)?;
    expect_in(&run.stderr, "checksum", "the message")?;
    expect_in(&run.stderr, "hint:", "the message")
}

/// An image of the probe, built with these additional arguments, its file for AWS Nitro beside it, and its root.
fn probe_image(lab: &mut Lab, args: &[&str]) -> Result<(PathBuf, PathBuf), Failure> {
    probe_image_of(lab, WEB, args)
}

fn probe_image_of(lab: &mut Lab, manifest: &str, args: &[&str]) -> Result<(PathBuf, PathBuf), Failure> {
    let root = lab.probe_root()?;
    fs::write(root.join("etc/hostname"), "enclave")?;
    lab.manifest(manifest)?;
    let image = lab.folder().join("first.cloister");
    let eif = image.with_extension("eif");
    build(lab, &root, &image, &[&["--eif", path_str(&eif)?], args].concat(), None)?;
    Ok((image, root))
}

/// Builds an image of `root` with the last written manifest.
fn build(lab: &Lab, root: &Path, image: &Path, args: &[&str], os: Option<&Path>) -> Outcome {
    let from = format!("dir:{}", root.display());
    let manifest = lab.folder().join("cloister1.yaml");
    let build = ["build", "--image", &from, "--manifest", path_str(&manifest)?, "-o", path_str(image)?];
    let mut sleeve = lab.sleeve(&[&build, args].concat()).limit(BUILD_LIMIT);
    if let Some(os) = os {
        sleeve = sleeve.env("CLOISTER_OS", path_str(os)?);
    }
    sleeve.finish()?.expect_code(0)
}

/// Boots an image, expects the predicted registers, and returns those that depend on the image.
fn reported(lab: &Lab, image: &Path) -> Result<Registers, Failure> {
    let predicted = predicted(lab, image)?;
    let mut web = lab.run(image, &["--backend", "qemu-nitro", "--rm"])?;
    let seen = web.wait_ready()?;
    expect_eq(&text(&seen, "/status/platform"), &"nitro".to_owned(), "the platform")?;
    let registers: Registers = rows(&seen)
        .filter_map(|row| Some((row.get("index")?.as_u64()?, row.get("value")?.as_str()?.to_owned())))
        .collect();
    expect_eq(&registers.get(&16).map(String::as_str), &Some(BOOT_DONE), "PCR16, which init extends")?;
    let unlocked: Vec<&Value> =
        rows(&seen).filter(|row| row.get("locked").and_then(Value::as_bool) != Some(true)).collect();
    expect(unlocked.is_empty(), format_args!("registers that are not locked: {unlocked:?}"))?;
    let of_image: Registers =
        registers.into_iter().filter(|(index, _)| predicted.contains_key(index)).collect();
    expect_eq(&of_image, &predicted, "the registers from DescribePCR inside, and the predicted ones")?;
    web.stop()?;
    Ok(predicted)
}

fn rows(inspected: &Value) -> impl Iterator<Item = &Value> {
    inspected.pointer("/status/registers").and_then(Value::as_array).into_iter().flatten()
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The output of `measure`, which equals the file written beside the image by the build.
fn predicted(lab: &Lab, image: &Path) -> Result<Registers, Failure> {
    let measured = lab.sleeve(&["measure", path_str(image)?, "--json"]).finish()?;
    measured.expect_code(0)?;
    let measured = measured.json()?;
    if image.is_dir() {
        let beside = fs::read(image.with_extension("measurements.json"))?;
        expect_eq(&serde_json::from_slice(&beside)?, &measured, "the measurements beside the image")?;
    }
    let pcrs = measured.pointer("/nitro/pcrs").and_then(Value::as_object).cloned().unwrap_or_default();
    let number = |name: &str| name.strip_prefix("pcr")?.parse().ok();
    Ok(pcrs.iter().filter_map(|(name, value)| Some((number(name)?, value.as_str()?.to_owned()))).collect())
}

fn differing(first: &Registers, second: &Registers) -> Vec<u64> {
    first.iter().filter(|(index, value)| second.get(index) != Some(value)).map(|(index, _)| *index).collect()
}

/// Copies the release under test.
fn copy_release(lab: &Lab, to: &Path) -> Outcome {
    fs::create_dir(to)?;
    for file in fs::read_dir(lab.built().dist.join("share/cloister/os/x86_64"))? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

fn serve(_args: &[String]) -> ExitCode {
    let served = serve_http(8080, |path| format!("you asked for {path}"));
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fails(_args: &[String]) -> ExitCode {
    drop(crate::guest::print(b"exiting with 42\n"));
    ExitCode::from(42)
}
