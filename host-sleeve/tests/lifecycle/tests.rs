//! The tests: launches, output, failures and requests. Terminations from outside are in [`super::termination`].

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::attestor;
use super::fixture::{Place, is_gone};
use super::termination;

/// A test and its name.
type Test = (&'static str, fn());

/// All tests.
pub(crate) const ALL: &[Test] = &[
    ("the_exit_code_and_the_output_of_a_service_are_reported", exits),
    (
        "documents_are_accepted_with_the_root_of_the_host_and_permission_for_virtual_alone",
        attestor::documents,
    ),
    ("a_machine_without_hardware_is_shown_as_virtual", shown_as_virtual),
    ("a_service_killed_by_a_signal_is_reported_with_the_shells_exit_code", signal_death),
    ("a_kernel_panic_is_reported_with_the_last_lines_of_the_console", panic),
    ("a_fatal_error_on_the_console_is_reported_as_the_cause", fatal),
    ("an_enclave_of_another_version_is_refused", other_version),
    ("an_enclave_that_sends_nothing_times_out", mute),
    ("a_run_over_its_time_limit_exits_with_124", timeout),
    ("with_json_the_reason_of_a_failure_is_printed_as_well", json),
    ("messages_about_a_flapping_enclave_are_bounded", flaps),
    ("a_detached_enclave_outlives_its_command_and_is_stopped", detached),
    ("a_detached_failure_reaches_the_terminal", detached_failure),
    ("the_exit_code_and_the_last_lines_of_a_detached_job_are_reported", detached_job),
    ("no_hint_names_an_enclave_removed_by_rm", removed),
    ("ctrl_c_stops_in_order_and_a_second_one_kills", termination::ctrl_c),
    ("ctrl_c_at_any_stage_leaves_nothing_behind", termination::ctrl_c_early),
    ("ctrl_c_reaches_a_sleeve_that_is_being_detached", termination::ctrl_c_detached),
    ("ctrl_c_of_a_terminal_is_130_from_the_first_millisecond", termination::ctrl_c_of_a_group),
    ("signals_that_were_ignored_at_the_start_stay_ignored", termination::ignored_signals),
    ("an_enclave_whose_directory_was_removed_is_found_again", termination::removed_directory),
    ("a_running_enclave_whose_lock_was_removed_is_not_removed", termination::removed_lock),
    ("no_output_is_printed_twice_after_a_directory_was_repaired", termination::repaired_directory),
    ("an_enclave_whose_output_is_not_read_is_stopped_and_removed_in_time", termination::unread_output),
    ("ctrl_c_ends_a_run_whose_output_is_not_read", termination::ctrl_c_while_printing),
    ("an_enclave_that_cannot_be_stopped_does_not_keep_others_running", termination::stop_of_several),
    ("a_blocked_terminal_does_not_prevent_a_stop", termination::unread_terminal),
    ("rm_all_with_force_kills_running_enclaves", termination::rm_all),
    ("an_enclave_that_does_not_stop_in_time_is_killed", termination::stubborn),
    ("a_killed_sleeve_leaves_nothing_behind_and_ps_reports_it", termination::killed_sleeve),
    ("a_sleeve_killed_while_creating_a_machine_leaves_a_record_of_it", termination::killed_while_creating),
    ("an_enclave_on_an_unknown_backend_is_not_removed_before_it_has_ended", termination::unknown_backend),
    ("a_killed_qemu_is_reported_as_the_cause", termination::killed_qemu),
    ("a_killed_vsock_device_is_reported_as_the_cause", termination::killed_device),
    ("the_error_of_a_qemu_that_does_not_start_is_reported", refusing_qemu),
    ("a_missing_qemu_is_named", missing_qemu),
    ("a_port_in_use_is_reported_before_the_boot", busy_port),
    ("a_port_the_image_does_not_have_is_refused", unknown_port),
    ("a_damaged_image_is_refused", damaged_image),
    ("too_little_memory_is_refused_with_the_required_amount", little_memory),
    ("a_name_is_used_once", names),
    ("a_line_of_ten_megabytes_is_printed_completely", long_line),
    ("bytes_that_are_not_utf_8_are_printed_unchanged", raw),
    ("a_restarted_supervisor_is_reconnected", restarts),
    ("requests_reach_the_enclave_and_refusals_are_reported", requests),
    ("metrics_are_served_while_the_enclave_runs", metrics),
    ("many_enclaves_run_side_by_side", side_by_side),
    ("doctor_starts_the_vsock_device_and_leaves_nothing", doctor),
    ("an_invalid_command_line_exits_with_125", usage),
];

fn shown_as_virtual() {
    let place = Place::new();
    let running = place.start("serve", &[]);
    for (args, expected) in [
        (&["ps"][..], "VIRTUAL, microvm, tcg"),
        (&["inspect", "web"], "VIRTUAL: no hardware protects this enclave"),
    ] {
        let shown = place.sleeve("", args).text();
        assert!(shown.contains(expected), "{shown}");
    }
    assert_eq!(place.sleeve("", &["ps", "--json"]).json()[0]["platform"], "virtual");
    place.sleeve("", &["stop", "web"]).with(0, "");
    running.end().with(0, "(VIRTUAL, microvm, tcg, ");
}

fn exits() {
    let place = Place::new();
    let ended = place.run("exit:3", &[]);
    ended.with(3, "");
    assert_eq!(ended.text(), "hello from the guest\nhalf a line\n");
    let ps = place.sleeve("", &["ps", "--all"]).text();
    assert!(ps.contains("web") && ps.contains("exited (3)"), "{ps}");
    assert_eq!(place.sleeve("", &["logs", "web"]).text(), ended.text());
    assert_eq!(place.sleeve("", &["logs", "-n", "1", "web"]).text(), "half a line\n");
    let console = place.sleeve("", &["logs", "--console", "web"]).text();
    assert!(console.contains("stage 1/9 mounts"), "{console}");
    let lines = place.sleeve("", &["logs", "--console", "web", "--json"]).text();
    let texts: String = lines
        .lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["stream"], "console", "{line}");
            value["text"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(texts, console);
    place.sleeve("", &["rm", "web"]).with(0, "");
    assert!(!place.runtime("web").exists());
}

fn signal_death() {
    let place = Place::new();
    place.run("signal:9", &[]).with(137, "SIGKILL");
}

fn panic() {
    let place = Place::new();
    let ended = place.run("panic", &[]);
    ended.with(125, "guest kernel panicked: Attempted to kill init!");
    ended.with(125, "stage 1/9 mounts: done");
}

fn fatal() {
    let place = Place::new();
    place.run("fatal", &[]).with(125, "mounts: no /proc");
    let end = place.inspect();
    assert_eq!(end["end"]["final"]["stage"], "mounts");
}

fn other_version() {
    let place = Place::new();
    place.run("other-version", &[]).with(125, "the peer speaks version 7");
}

fn mute() {
    let place = Place::new();
    place.run("mute", &["--ready-timeout", "300ms"]).with(124, "did not respond within 300 ms");
}

fn timeout() {
    let place = Place::new();
    place.run("serve", &["--timeout", "300ms"]).with(124, "it ran for 300 ms");
}

fn json() {
    let place = Place::new();
    let ended = place.run("serve", &["--timeout", "300ms", "--json"]);
    ended.with(124, "it ran for 300 ms");
    assert_eq!(ended.json()["end"]["code"], 124);
    let ended = place.run("panic", &["--replace", "--json"]);
    ended.with(125, "guest kernel panicked: Attempted to kill init!");
    assert_eq!(ended.json()["end"]["code"], 125);
}

fn flaps() {
    let place = Place::new();
    let is_bounded = |text: &str| {
        assert!(text.contains("is degraded: because because"), "{text}");
        assert!(text.contains("changes state too often"), "{text}");
        assert!(text.len() < 5000, "{} bytes were printed", text.len());
    };
    let ended = place.run("flaps:500", &[]);
    ended.with(0, "is ready");
    is_bounded(&ended.stderr);
    place.run("flaps:500", &["--replace", "--detach"]).with(0, "is ready");
    while place.inspect()["alive"] == true {}
    is_bounded(&std::fs::read_to_string(place.runtime("web").join("sleeve.log")).unwrap());
}

fn detached() {
    let place = Place::new();
    let started = place.run("serve", &["--detach", "--publish", "0:80"]);
    started.with(0, "is ready");
    assert_eq!(started.text(), "web\n");
    let inspected = place.inspect();
    assert_eq!(inspected["alive"], true);
    assert_eq!(inspected["status"]["state"], "ready");
    let qemu = inspected["processes"]["qemu"].as_u64().unwrap();
    assert!(place.sleeve("", &["ps"]).text().contains("ready"));
    let stopped = place.sleeve("", &["stop", "web"]);
    stopped.with(0, "");
    assert_eq!(stopped.text(), "web\n");
    assert!(is_gone(qemu));
    assert_eq!(place.inspect()["end"]["code"], 0);
}

fn detached_failure() {
    let place = Place::new();
    place.run("panic", &["--detach"]).with(125, "guest kernel panicked");
    place.run("serve", &["--detach", "--replace", "--publish", "1:81"]).with(125, "no ingress port 81");
    assert!(place.runtime("web").exists(), "a refused launch replaced the enclave");
}

fn detached_job() {
    let place = Place::new();
    let ended = place.run("exit:4", &["--detach"]);
    ended.with(4, "web ended before it was ready: web: exited (4)");
    ended.with(4, "last output of its services:\n  | hello from the guest\n  | half a line\n");
    ended.with(4, "hint: `host-sleeve logs web`");
    place.run("exit:0", &["--detach", "--replace"]).with(0, "cloister: web: exited (0)");
}

fn removed() {
    let place = Place::new();
    for script in ["exit:4", "fatal", "panic"] {
        for args in [["--rm"].as_slice(), &["--rm", "--detach"]] {
            let ended = place.run(script, args);
            assert!(!ended.stderr.contains("host-sleeve logs"), "{script}: {ended:?}");
        }
    }
    place.run("fatal", &["--rm", "--detach"]).with(125, "  | stage 1/9 mounts: done");
    place.run("exit:4", &["--rm", "--detach"]).with(4, "  | half a line");
}

fn refusing_qemu() {
    let place = Place::new();
    let app = place.app();
    let mut command = place.command("serve", &["run", &app, "--accel", "tcg"]);
    let output = command.env("FAKE_QEMU", "refuse").output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        printed.contains("QEMU exited with code 101") && printed.contains("cannot allocate memory"),
        "{printed}"
    );
}

fn missing_qemu() {
    let place = Place::new();
    std::fs::remove_file(place.path().join("bin/qemu-system-x86_64")).unwrap();
    place.run("serve", &[]).with(125, "apt install qemu-system-x86");
    assert!(!place.runtime("web").exists(), "something was left behind");
}

fn busy_port() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let ended = place.run("serve", &["--publish", &format!("{port}:80")]);
    ended.with(125, &format!("cannot listen on 127.0.0.1:{port}"));
    assert!(!place.runtime("web").exists(), "something was left behind");
}

fn unknown_port() {
    let place = Place::new();
    place.run("serve", &["--publish", "0:81"]).with(125, "its ingress ports: 80");
}

fn damaged_image() {
    let place = Place::new();
    let blobs = place.path().join("app.cloister/blobs/sha256");
    for blob in std::fs::read_dir(blobs).unwrap() {
        let path = blob.unwrap().path();
        if std::fs::read(&path).unwrap() == b"kernel" {
            std::fs::write(path, b"colonel").unwrap();
        }
    }
    place.run("serve", &[]).with(125, "hint: ");
    let missing = place.sleeve("", &["run", "no-such.cloister"]);
    missing.with(125, "no-such.cloister");
}

fn little_memory() {
    let place = Place::new();
    place.run("serve", &["--memory", "16MiB"]).with(125, "it needs at least 33 MiB");
}

fn names() {
    let place = Place::new();
    let running = place.start("serve", &[]);
    place.run("serve", &[]).with(125, "an enclave named web is running");
    place.sleeve("", &["rm", "web"]).with(125, "is running");
    place.sleeve("", &["rm", "--force", "web"]).with(0, "");
    running.end().with(137, "killed on request");
    place.run("exit:0", &[]).with(0, "");
    place.run("exit:0", &[]).with(125, "--replace");
    let app = place.app();
    place.sleeve("exit:0", &["run", &app, "--accel", "tcg"]).with(0, "");
    assert!(place.runtime("hello-1").exists());
    place.sleeve("", &["inspect", "nobody"]).with(125, "no enclave named nobody");
}

fn long_line() {
    let place = Place::new();
    let ended = place.run("long-line:10000000", &[]);
    ended.with(0, "");
    assert_eq!(ended.stdout.len(), 10_000_000 + "\nafter the long line\n".len());
}

fn raw() {
    let place = Place::new();
    assert_eq!(place.run("raw", &[]).stdout, b"before \xff\xfe\0\x80 after\n");
}

fn restarts() {
    let place = Place::new();
    let running = place.start("restarts", &[]);
    place.sleeve("", &["stop", "web"]).with(0, "");
    running.end().with(0, "");
}

fn requests() {
    let place = Place::new();
    let running = place.start("serve", &[]);
    place.sleeve("", &["service", "restart", "web", "web"]).with(125, "the manifest does not allow it");
    let stats = place.sleeve("", &["stats", "--json"]).json();
    assert_eq!(stats[0]["services"][0]["memory"], 3 << 20);
    place.sleeve("", &["stop", "--kill", "web"]).with(0, "");
    running.end().with(137, "killed on request");
    place.sleeve("", &["stats", "web"]).with(125, "web is not running");
}

fn metrics() {
    let place = Place::new();
    let running = place.start("serve", &["--metrics", ":0"]);
    let address = place.inspect()["metrics"].as_str().unwrap().to_owned();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("cloister_enclave_ready{enclave=\"web\"} 1"), "{text}");
    assert!(
        text.contains("cloister_service_memory_bytes{enclave=\"web\",service=\"web\"} 3145728"),
        "{text}"
    );
    place.sleeve("", &["stop", "web"]).with(0, "");
    running.end().with(0, "");
}

fn side_by_side() {
    let place = Place::new();
    let app = place.app();
    let run = ["run", &app, "--accel", "tcg", "--detach"];
    let children: Vec<_> = (0..8)
        .map(|_| place.command("serve", &run).stdout(std::process::Stdio::piped()).spawn().unwrap())
        .collect();
    let mut names: Vec<String> = children
        .into_iter()
        .map(|child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned())
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 8, "{names:?}");
    let args: Vec<&str> = std::iter::once("stop").chain(names.iter().map(String::as_str)).collect();
    place.sleeve("", &args).with(0, "");
    assert_eq!(place.sleeve("", &["ps", "--json"]).json().as_array().unwrap().len(), 0);
}

fn doctor() {
    let place = Place::new();
    let vsock = || {
        let diagnosis = place.sleeve("", &["doctor", "--json"]).json();
        let findings = diagnosis["findings"].as_array().unwrap().clone();
        findings.into_iter().find(|finding| finding["what"] == "vsock").unwrap()
    };
    assert_eq!(vsock()["works"], true, "{}", vsock());
    let device = place.path().join("bin/vhost-device-vsock");
    std::fs::remove_file(&device).unwrap();
    std::os::unix::fs::symlink("/bin/false", &device).unwrap();
    let broken = vsock();
    assert_eq!(broken["works"], false, "{broken}");
    assert!(broken["found"].as_str().unwrap().contains("does not start"), "{broken}");
    assert_eq!(std::fs::read_dir(place.path().join("cache/tmp")).unwrap().count(), 0);
    assert_eq!(place.processes(), [""; 0]);
}

fn usage() {
    let place = Place::new();
    place.sleeve("", &["run", "--no-such-option"]).with(125, "--no-such-option");
    place.sleeve("", &["--version"]).with(0, "");
}
