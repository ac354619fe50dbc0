//! The stories.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::fixture::{Place, is_gone};
use super::termination;

/// A story and its name.
type Story = (&'static str, fn());

/// All of them.
pub(crate) const ALL: &[Story] = &[
    ("a_service_that_ends_gives_its_code_and_its_words", ends),
    ("a_signal_death_is_told_and_gives_its_shell_code", signal_death),
    ("a_kernel_panic_is_told_with_the_last_lines_of_the_console", panic),
    ("last_words_on_the_console_are_the_reason", last_words),
    ("an_enclave_of_another_version_is_refused", stranger),
    ("an_enclave_that_says_nothing_is_given_up_in_time", mute),
    ("a_run_over_its_limit_ends_with_124", timeout),
    ("json_says_why_it_failed_as_well", json),
    ("an_enclave_that_flaps_is_told_within_bounds", flaps),
    ("a_detached_enclave_outlives_its_command_and_is_stopped", detached),
    ("a_detached_failure_reaches_the_terminal", detached_failure),
    ("a_detached_job_gives_its_code_and_its_last_lines", detached_job),
    ("after_rm_no_hint_names_the_enclave", forgotten),
    ("ctrl_c_stops_in_order_and_a_second_one_kills", termination::ctrl_c),
    ("ctrl_c_at_any_stage_leaves_nothing_behind", termination::ctrl_c_early),
    ("ctrl_c_reaches_a_sleeve_that_is_being_detached", termination::ctrl_c_detached),
    ("ctrl_c_of_a_terminal_is_130_from_the_first_millisecond", termination::ctrl_c_of_a_group),
    ("signals_that_were_ignored_at_the_start_stay_ignored", termination::ignored_signals),
    ("an_enclave_whose_folder_was_removed_is_found_again", termination::removed_folder),
    ("a_removed_lock_file_makes_nothing_removable", termination::removed_lock),
    ("a_repaired_folder_has_nothing_told_twice", termination::repaired_folder),
    ("an_enclave_whose_output_nobody_reads_is_stopped_and_removed_in_time", termination::unread_output),
    ("ctrl_c_ends_a_run_whose_output_nobody_reads", termination::ctrl_c_while_printing),
    ("one_that_cannot_be_stopped_keeps_no_other_running", termination::stop_of_several),
    ("a_terminal_that_is_not_read_keeps_no_enclave_from_being_stopped", termination::unread_terminal),
    ("rm_all_with_force_ends_those_that_run", termination::rm_all),
    ("what_does_not_stop_is_killed_when_its_time_is_over", termination::stubborn),
    ("a_killed_sleeve_leaves_nothing_and_ps_says_so", termination::killed_sleeve),
    (
        "a_sleeve_killed_while_it_creates_a_machine_leaves_a_record_that_says_so",
        termination::killed_while_creating,
    ),
    ("an_enclave_on_an_unknown_backend_is_not_forgotten_before_it_has_ended", termination::unknown_backend),
    ("a_killed_qemu_is_the_reason", termination::killed_qemu),
    ("a_killed_vsock_device_is_the_reason", termination::killed_device),
    ("a_qemu_that_refuses_to_start_says_why", refusing_qemu),
    ("a_missing_qemu_is_named", missing_qemu),
    ("a_busy_port_is_said_before_the_boot", busy_port),
    ("a_port_the_image_does_not_have_is_refused", unknown_port),
    ("a_damaged_image_is_refused", damaged_image),
    ("too_little_memory_is_refused_with_the_number", little_memory),
    ("a_name_is_given_once", names),
    ("ten_megabytes_on_one_line_arrive", long_line),
    ("bytes_that_are_no_text_arrive_unchanged", raw),
    ("a_supervisor_that_comes_back_is_found_again", restarts),
    ("requests_reach_the_enclave_and_its_refusals_come_back", requests),
    ("metrics_are_served_while_the_enclave_runs", metrics),
    ("many_enclaves_run_side_by_side", side_by_side),
    ("doctor_starts_the_vsock_device_and_leaves_nothing", doctor),
    ("words_that_make_no_sense_end_with_125", usage),
];

fn ends() {
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
    ended.with(125, "the enclave's kernel gave up: Attempted to kill init!");
    ended.with(125, "stage 1/9 mounts: done");
}

fn last_words() {
    let place = Place::new();
    place.run("last-words", &[]).with(125, "mounts: no /proc");
    let end = place.inspect();
    assert_eq!(end["end"]["final"]["stage"], "mounts");
}

fn stranger() {
    let place = Place::new();
    place.run("stranger", &[]).with(125, "the peer speaks version 7");
}

fn mute() {
    let place = Place::new();
    place.run("mute", &["--ready-timeout", "300ms"]).with(124, "did not answer within 300 ms");
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
    ended.with(125, "the enclave's kernel gave up: Attempted to kill init!");
    assert_eq!(ended.json()["end"]["code"], 125);
}

fn flaps() {
    let place = Place::new();
    let told_within_bounds = |text: &str| {
        assert!(text.contains("is degraded: because because"), "{text}");
        assert!(text.contains("turns too often"), "{text}");
        assert!(text.len() < 5000, "{} bytes are told", text.len());
    };
    let ended = place.run("flaps:500", &[]);
    ended.with(0, "is ready");
    told_within_bounds(&ended.stderr);
    place.run("flaps:500", &["--replace", "--detach"]).with(0, "is ready");
    while place.inspect()["alive"] == true {}
    told_within_bounds(&std::fs::read_to_string(place.runtime("web").join("sleeve.log")).unwrap());
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
    place.run("panic", &["--detach"]).with(125, "the enclave's kernel gave up");
    place.run("serve", &["--detach", "--replace", "--publish", "1:81"]).with(125, "no ingress port 81");
    assert!(place.runtime("web").exists(), "a refused launch takes nothing over");
}

fn detached_job() {
    let place = Place::new();
    let ended = place.run("exit:4", &["--detach"]);
    ended.with(4, "web ended before it was ready: web: exited (4)");
    ended.with(4, "its services wrote last:\n  | hello from the guest\n  | half a line\n");
    ended.with(4, "hint: `host-sleeve logs web`");
    place.run("exit:0", &["--detach", "--replace"]).with(0, "cloister: web: exited (0)");
}

fn forgotten() {
    let place = Place::new();
    for script in ["exit:4", "last-words", "panic"] {
        for words in [["--rm"].as_slice(), &["--rm", "--detach"]] {
            let ended = place.run(script, words);
            assert!(!ended.stderr.contains("host-sleeve logs"), "{script}: {ended:?}");
        }
    }
    place.run("last-words", &["--rm", "--detach"]).with(125, "  | stage 1/9 mounts: done");
    place.run("exit:4", &["--rm", "--detach"]).with(4, "  | half a line");
}

fn refusing_qemu() {
    let place = Place::new();
    let app = place.app();
    let mut command = place.command("serve", &["run", &app, "--accel", "tcg"]);
    let output = command.env("FAKE_QEMU", "refuse").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125));
    assert!(said.contains("QEMU ended with code 101") && said.contains("cannot allocate memory"), "{said}");
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
    place.sleeve("", &["inspect", "nobody"]).with(125, "no enclave is named nobody");
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
    let words: Vec<&str> = std::iter::once("stop").chain(names.iter().map(String::as_str)).collect();
    place.sleeve("", &words).with(0, "");
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
