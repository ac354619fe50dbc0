//! Images in common use: Debian with Python, nginx, redis, two hundred layers, a gigabyte, and an image from a registry.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::services_are_confined::confinement;
use crate::guest::{no_guest, print};
use crate::lab::Running;
use crate::scenario::{Failure, expect, expect_at, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The variable that names Debian's `docker-registry`, which `scripts/test` extracts from its package; by default the one in
/// `PATH` is used.
const REGISTRY_PROGRAM: &str = "CLOISTER_DOCKER_REGISTRY";

/// The examples that users copy are the ones tested.
const PYTHON_EXAMPLE: &str = include_str!("../../../examples/python/cloister.yaml");
const NGINX_EXAMPLE: &str = include_str!("../../../examples/nginx/cloister.yaml");
const REDIS_EXAMPLE: &str = include_str!("../../../examples/redis/cloister.yaml");

/// nginx as Debian configures it: started by root, with workers of another user. A shell beside it prints the owner of each
/// process, which is invisible from outside the service.
const NGINX_AS_IT_COMES: &str = r#"
version: 1
services:
  web:
    ready: {tcp: 80}
    capabilities: docker
    command:
      - /bin/sh
      - -c
      - |
        owners() {
          for p in /proc/[0-9]*; do
            read -r program kind _ 2>/dev/null <$p/cmdline || :
            case $program in nginx:) while read -r key uids; do [ $key = Uid: ] && echo $program $kind $uids; done <$p/status ;; esac
          done
        }
        (
          found=
          until case $found in *worker*) true ;; *) false ;; esac; do sleep 0.1; found=$(owners); done
          echo "$found"
        ) &
        exec nginx -g 'daemon off;'
ingress: [{port: 80, service: web}]
"#;

/// Debian's number for `www-data` (base-passwd).
const WWW_DATA: u32 = 33;

/// Time limit for a registry on loopback to listen.
const REGISTRY_LIMIT: Duration = Duration::from_secs(20);

/// Python's own HTTP server.
pub(super) const PYTHON: Scenario =
    Scenario { name: "a_debian_root_serves_files_with_python", host: python, guest: no_guest };

/// nginx.
pub(super) const NGINX: Scenario = Scenario {
    name: "nginx_from_debian_serves_as_its_own_user_and_logs_to_stdout",
    host: nginx,
    guest: no_guest,
};

/// redis.
pub(super) const REDIS: Scenario =
    Scenario { name: "redis_benchmark_runs_through_ingress", host: redis, guest: no_guest };

/// Many layers.
pub(super) const LAYERS: Scenario = Scenario {
    name: "an_image_of_two_hundred_layers_has_the_files_of_the_last_one",
    host: layers,
    guest: newest,
};

/// A registry.
pub(super) const REGISTRY: Scenario = Scenario {
    name: "an_image_pushed_to_a_registry_runs_by_tag_and_by_digest",
    host: registry,
    guest: no_guest,
};

/// A large image.
pub(super) const LARGE: Scenario =
    Scenario { name: "an_image_of_a_gigabyte_boots_and_answers", host: large, guest: no_guest };

fn python(lab: &mut Lab) -> Outcome {
    let root = lab.input("python")?;
    let (mut web, port) = serve(lab, &format!("dir:{root}"), PYTHON_EXAMPLE)?;
    let answer = web.get(port, "/common-licenses/Apache-2.0")?;
    expect_eq(&answer.status, &200, "the status of a Debian file")?;
    expect_in(&answer.body, "Apache License", "the file")?;
    web.stop()?;
    Ok(())
}

/// Debian's nginx starts as root and drops its privileges; the example's never was root and cannot become it.
fn nginx(lab: &mut Lab) -> Outcome {
    let archive = lab.input("nginx")?;
    let (mut web, port) = serve(lab, &format!("docker-archive:{archive}"), NGINX_EXAMPLE)?;
    let answer = web.get(port, "/?asked-from-outside")?;
    expect_eq(&answer.status, &200, "the status of /")?;
    expect_in(&answer.body, "nginx", "the page")?;
    // Its own liveness checks are in the log, too.
    web.wait_stdout("GET /?asked-from-outside HTTP/1.0")?;
    let confinement = confinement(&web, "nginx")?;
    expect_at(&confinement, "/uids", json!([WWW_DATA, WWW_DATA, WWW_DATA, WWW_DATA]))?;
    expect_at(&confinement, "/capabilities_bounding", 0)?;
    web.stop()?.expect_code(0)
}

fn redis(lab: &mut Lab) -> Outcome {
    let layout = lab.input("redis")?;
    let (mut web, port) = serve(lab, &format!("oci:{layout}"), REDIS_EXAMPLE)?;
    let bench = Command::new("redis-benchmark")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-n",
            "2000",
            "-c",
            "20",
            "-t",
            "ping,set,get",
            "--csv",
        ])
        .output()?;
    let table = String::from_utf8_lossy(&bench.stdout).into_owned();
    expect(bench.status.success(), format_args!("redis-benchmark failed: {table}"))?;
    for test in ["PING_INLINE", "SET", "GET"] {
        expect_in(&table, test, "redis-benchmark's table")?;
    }
    web.stop()?.expect_code(0)
}

fn layers(lab: &mut Lab) -> Outcome {
    let archive = lab.input("layers")?;
    let manifest = "{version: 1, services: {web: {command: [/bin/probe, NAME], restart: never}}}"
        .replace("NAME", LAYERS.name);
    let layered = with_probe(lab, &archive)?;
    let image = lab.build_from(&format!("docker-archive:{layered}"), &manifest)?;
    let mut web = lab.run(&image, &[])?;
    let ended = web.finish()?;
    ended.expect_code(0)?;
    expect_in(&ended.stdout, "newest 200, files 100", "the files of the last layer")
}

fn newest(_args: &[String]) -> ExitCode {
    let newest = std::fs::read_to_string("/app/newest").unwrap_or_default();
    let files = std::fs::read_dir("/app").map(Iterator::count).unwrap_or_default().saturating_sub(1);
    let printed = print(format!("newest {}, files {files}\n", newest.trim()).as_bytes());
    if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A copy of a docker-archive with an additional layer that contains the probe: made with skopeo and tar, as a user would.
fn with_probe(lab: &Lab, archive: &str) -> Result<String, Failure> {
    let script = "set -e
        mkdir -p w/bin && tar -C w -xf \"$1\" && cp \"$2\" probe && mkdir -p l/bin && cp probe l/bin/probe
        tar -C l --owner=0 --group=0 -cf w/probe.tar bin
        sum=$(sha256sum w/probe.tar | cut -d' ' -f1)
        sed -i \"s|\\]},\\\"history|,\\\"sha256:$sum\\\"]},\\\"history|\" w/config.json
        sed -i 's|\\]}\\]$|,\"probe.tar\"]}]|' w/manifest.json
        rm -rf w/bin && tar -C w -cf layered.tar .";
    let made = Command::new("sh")
        .args(["-c", script, "sh", archive])
        .arg(&lab.built().probe)
        .current_dir(lab.folder())
        .output()?;
    expect(made.status.success(), String::from_utf8_lossy(&made.stderr))?;
    Ok(lab.folder().join("layered.tar").display().to_string())
}

fn registry(lab: &mut Lab) -> Outcome {
    let archive = lab.input("nginx")?;
    let port = lab.free_port()?;
    let _registry = Registry::start(lab, port)?;
    let target = format!("docker://127.0.0.1:{port}/web/nginx:stable");
    let pushed = Command::new("skopeo")
        .args([
            "copy",
            "--dest-tls-verify=false",
            "--digestfile",
            "digest",
            &format!("docker-archive:{archive}"),
            &target,
        ])
        .current_dir(lab.folder())
        .output()?;
    expect(pushed.status.success(), String::from_utf8_lossy(&pushed.stderr))?;
    let digest = std::fs::read_to_string(lab.folder().join("digest"))?;
    let by_tag = lab.build_from(&target, NGINX_AS_IT_COMES)?;
    let by_digest = format!("docker://127.0.0.1:{port}/web/nginx@{}", digest.trim());
    let by_digest = lab.build_from(&by_digest, NGINX_AS_IT_COMES)?;
    // The index names every byte by its digest: if one of the two runs, so does the other.
    let index = |image: &Path| std::fs::read_to_string(image.join("index.json"));
    expect_eq(&index(&by_tag)?, &index(&by_digest)?, "the results of the two builds")?;
    let (mut web, port) = run(lab, &by_tag, "80")?;
    expect_eq(&web.get(port, "/")?.status, &200, "the status of /")?;
    web.wait_stdout("nginx: worker")?;
    let ended = web.stop()?;
    expect_in(&ended.stdout, "nginx: master 0 0 0 0\n", "the owner of nginx")?;
    expect_in(&ended.stdout, "nginx: worker 33 33 33 33\n", "the owner of its workers")?;
    ended.expect_code(0)
}

fn large(lab: &mut Lab) -> Outcome {
    let layout = lab.input("large")?;
    let manifest = "{version: 1, services: {web: {ready: {tcp: 8000}}}, ingress: [8000]}";
    // The sleeve chooses how much memory such an image needs.
    let (mut web, port) = serve(lab, &format!("oci:{layout}"), manifest)?;
    expect_eq(&web.get(port, "/usr/bin/")?.status, &200, "the status of a directory")?;
    expect_in(&web.get(port, "/usr/bin/ghc")?.body, "exec", "a file of the image's largest package")?;
    web.stop()?;
    Ok(())
}

/// Builds and runs an image and waits until it is ready; its single ingress port is published on the returned port.
fn serve(lab: &mut Lab, reference: &str, manifest: &str) -> Result<(Running, u16), Failure> {
    let image = lab.build_from(reference, manifest)?;
    let inside = manifest.rsplit_once("ingress").and_then(|(_, tail)| {
        tail.split(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty()).map(str::to_owned)
    });
    run(lab, &image, &inside.unwrap_or_default())
}

/// Runs an image with the memory that the sleeve chooses, and waits until it is ready.
fn run(lab: &Lab, image: &Path, inside: &str) -> Result<(Running, u16), Failure> {
    let port = lab.free_port()?;
    let web = lab.run(image, &["--publish", &format!("127.0.0.1:{port}:{inside}")])?;
    web.wait_ready()?;
    Ok((web, port))
}

/// Debian's `docker-registry` on loopback, until it is dropped.
struct Registry(Child);

impl Registry {
    fn start(lab: &Lab, port: u16) -> Result<Self, Failure> {
        let config = lab.folder().join("registry.yml");
        let store = lab.folder().join("registry");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
                store.display()
            ),
        )?;
        let program = std::env::var_os(REGISTRY_PROGRAM).unwrap_or_else(|| "docker-registry".into());
        let child = Command::new(program)
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let registry = Self(child);
        let started = Instant::now();
        while !answers(port) {
            expect(started.elapsed() < REGISTRY_LIMIT, "docker-registry does not listen")?;
            std::thread::yield_now();
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn answers(port: u16) -> bool {
    let asked = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
        stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    });
    asked.is_ok_and(|line| line.contains("200"))
}
