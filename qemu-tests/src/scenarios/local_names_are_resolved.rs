//! The local names that a container engine provides in addition to an image: localhost, the own host name, a resolver file.

use std::fs;
use std::io;
use std::net::ToSocketAddrs;
use std::os::unix::fs::symlink;
use std::process::ExitCode;

use rustix::process::Signal;

use crate::guest::{catch, print};
use crate::scenario::{expect, expect_in};
use crate::{Lab, Outcome, Scenario};

/// An image that lacks them, except for one that is a dangling link.
pub(super) const LACKING: Scenario =
    Scenario { name: "an_image_without_hosts_resolves_localhost_and_its_own_name", host: lacking, guest };

/// An image that has its own.
pub(super) const BROUGHT: Scenario =
    Scenario { name: "an_images_own_hosts_and_resolver_stay_unchanged", host: brought, guest };

const MANIFEST: &str = "
version: 1
name: shop
services:
  web:
    command: [PROBE, web]
    files: {/etc/app.conf: {content: configured, mode: 0400}}
    critical: true
    ready: {log: web is done}
  other: {command: [PROBE, other], user: app, kind: job, after: [web]}
";

fn lacking(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    symlink("/run/app/real.conf", root.join("etc/app.conf"))?;
    symlink("../run/systemd/resolve/stub-resolv.conf", root.join("etc/resolv.conf"))?;
    fs::write(root.join("etc/hostname"), "")?;
    let manifest = lab.manifest(MANIFEST)?;
    let image = lab.build(&root, &manifest)?;
    let mut web = lab.run(&image, &[])?;
    web.wait_service("other", "done")?;
    let ended = web.stop()?;
    for service in ["web", "other"] {
        for fact in [
            "localhost: 127.0.0.1",
            "localhost: ::1",
            "shop: 127.0.0.1",
            "/etc/hostname: shop",
            "the kernel's name: shop",
            "HOSTNAME: shop",
            "resolver: nameserver 127.0.0.1",
        ] {
            expect_in(&ended.stdout, &format!("{service}: {fact}\n"), "the service's result")?;
        }
    }
    expect_in(&ended.stdout, "web: /etc/app.conf: configured\n", "a file over a dangling link")?;
    expect_in(&ended.stdout, "web: an added host: 127.0.0.1\n", "the entry that root added to /etc/hosts")?;
    expect_in(&ended.stdout, "other: an added host: unknown\n", "the entry in another service's view")
}

fn brought(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    fs::write(root.join("etc/hosts"), "127.0.0.7 localhost shop\n")?;
    fs::write(root.join("etc/hostname"), "mine\n")?;
    fs::write(root.join("etc/resolv.conf"), "nameserver 127.0.0.8\n")?;
    let manifest = lab.manifest("{version: 1, name: shop, services: {web: {command: [PROBE, other], kind: job, env: {HOSTNAME: theirs}}}}")?;
    let image = lab.build(&root, &manifest)?;
    let ended = lab.run(&image, &[])?.finish()?;
    ended.expect_code(0)?;
    for fact in [
        "localhost: 127.0.0.7",
        "shop: 127.0.0.7",
        "/etc/hostname: mine",
        "HOSTNAME: theirs",
        "resolver: nameserver 127.0.0.8",
    ] {
        expect_in(&ended.stdout, &format!("other: {fact}\n"), "the service's result")?;
    }
    expect(!ended.stdout.contains("localhost: ::1"), "the image's hosts are unchanged")
}

fn guest(args: &[String]) -> ExitCode {
    let name = args.first().map_or("", String::as_str);
    match check(name) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(print(format!("{name}: {error}\n").as_bytes()));
            ExitCode::FAILURE
        }
    }
}

fn check(service: &str) -> io::Result<()> {
    let mut report = String::new();
    let mut fact = |of: &str, value: &str| {
        for line in value.lines() {
            report.push_str(&[service, ": ", of, ": ", line, "\n"].concat());
        }
    };
    if service == "web" {
        let hosts = fs::read_to_string("/etc/hosts")?;
        fs::write("/etc/hosts", hosts + "127.0.0.1 a.host.of.its.own\n")?;
        fact("/etc/app.conf", &fs::read_to_string("/etc/app.conf")?);
    }
    fact("localhost", &addresses("localhost"));
    fact("shop", &addresses("shop"));
    fact("an added host", &addresses("a.host.of.its.own"));
    fact("/etc/hostname", &fs::read_to_string("/etc/hostname")?);
    fact("the kernel's name", &rustix::system::uname().nodename().to_string_lossy());
    fact("HOSTNAME", &std::env::var("HOSTNAME").unwrap_or_default());
    let resolver = fs::read_to_string("/etc/resolv.conf")?;
    fact("resolver", resolver.lines().next().unwrap_or_default());
    let mut term = catch(Signal::TERM)?;
    print(report.as_bytes())?;
    if service == "web" {
        print(b"web is done\n")?;
        term.wait()?;
    }
    Ok(())
}

/// The result of getaddrinfo(3), one address per line.
fn addresses(name: &str) -> String {
    match (name, 80).to_socket_addrs() {
        Ok(found) => found.map(|address| address.ip().to_string()).collect::<Vec<_>>().join("\n"),
        Err(_) => "unknown".to_owned(),
    }
}
