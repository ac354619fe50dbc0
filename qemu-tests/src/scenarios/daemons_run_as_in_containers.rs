//! Programs that expect to run in a container: names of the C library, cron, entry programs, supervisors, and servers that start
//! as root.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::guest::no_guest;
use crate::lab::COMMAND_LIMIT;
use crate::scenario::{expect_at, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// An image without `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`, in which glibc and Python resolve names. tini and dumb-init
/// each start a shell; s6 and sysvinit are process 1.
const ENTRY_POINTS: &str = r#"
version: 1
name: box
services:
  names:
    kind: job
    user: nobody
    command:
      - /bin/sh
      - -ec
      - |
        echo "hosts: $(getent hosts localhost) $(getent hosts "$(hostname)") $(hostname -f)" | tr -s ' '
        ! getent hosts nowhere.example
        python3 -c '
        import socket
        print("python:", sorted({a[4][0] for a in socket.getaddrinfo("localhost", 80)}),
              socket.gethostbyname(socket.gethostname()))'
  cron:
    command: [cron, -f]
    capabilities: docker
    files:
      /etc/cron.d/trial: |
        @reboot root echo "cron ran a job as $(id -un)" >/proc/1/fd/1
        @reboot nobody echo "cron ran a job as $(id -un)" >/tmp/nobody && chmod 644 /tmp/nobody
  gosu:
    capabilities: docker
    command:
      - /bin/sh
      - -ec
      - |
        echo "root's line" >/proc/1/fd/1
        mkdir /srv/data && chown nobody /srv/data
        exec gosu nobody sh -c '
          touch /srv/data/mine; echo "$(id -un) owns $(stat -c %U /srv/data/mine)"
          for name in /dev/stdout /proc/1/fd/1; do (: >$name) 2>/dev/null || echo "$name is not opened for $(id -un)"; done
          exec sleep 1000'
  tini:
    command: [tini, -s, --, sh, -c, 'trap "echo below tini: TERM; exit 0" TERM; echo tini started; while :; do sleep 1 & wait; done']
  dumb:
    command: [dumb-init, --, sh, -c, 'trap "echo below dumb-init: TERM; exit 0" TERM; echo dumb-init started; while :; do sleep 1 & wait; done']
  s6:
    first_process: service
    command:
      - /bin/sh
      - -ec
      - |
        mkdir -p /tmp/scan/app
        printf '#!/bin/sh\necho s6 supervises, $(cat /proc/1/comm) is process 1\nexec sleep 1000\n' >/tmp/scan/app/run
        chmod +x /tmp/scan/app/run
        exec s6-svscan /tmp/scan
  sysv:
    first_process: service
    stop_timeout: 1s
    ready: {file: /run/respawned}
    command: [/sbin/init]
    files:
      /etc/inittab: |
        id:2:initdefault:
        app:2:respawn:/bin/sh -c 'cp /proc/1/comm /run/respawned; exec sleep 1000'
ingress: []
"#;

/// Four servers as their images start them, and a client of one of them.
const SERVERS: &str = r"
version: 1
services:
  apache:
    command: [apache2ctl, -DFOREGROUND]
    capabilities: docker
    ready: {tcp: 80}
    stop_signal: SIGWINCH
  haproxy:
    command: [haproxy, -W, -db, -f, /etc/haproxy/front.cfg]
    capabilities: docker
    ready: {tcp: 8080}
    after: [apache]
    files:
      /etc/haproxy/front.cfg: |
        global
          log stdout format raw local0
          user haproxy
          group haproxy
          chroot /var/lib/haproxy
        defaults
          mode http
          log global
          option httplog
          timeout connect 10s
          timeout client 60s
          timeout server 60s
        frontend front
          bind :8080
          default_backend web
        backend web
          server web localhost:80
  memcached:
    command: [memcached, -m, 16]
    user: memcache
    ready: {tcp: 11211}
  mosquitto:
    command: [mosquitto, -c, /etc/mosquitto/trial.conf]
    capabilities: docker
    ready: {tcp: 1883}
    files:
      /etc/mosquitto/trial.conf: |
        listener 1883
        allow_anonymous true
        persistence true
        persistence_location /var/lib/mosquitto/
  ask:
    kind: job
    user: nobody
    after: [mosquitto]
    command:
      - /bin/sh
      - -ec
      - |
        mosquitto_pub -h localhost -t greeting -r -m 'published and kept'
        mosquitto_sub -h localhost -t greeting -C 1
ingress: [{port: 8080, service: haproxy}, {port: 11211, service: memcached}]
";

/// The machine's memory: for the image and what its services write.
const MEMORY: &str = "1GiB";

/// Names, cron, and entry programs that start others.
pub(super) const NAMES: Scenario = Scenario {
    name: "name_lookup_cron_gosu_and_init_programs_work_as_in_a_container",
    host: entry_points,
    guest: no_guest,
};

/// Four servers.
pub(super) const ANSWERS: Scenario = Scenario {
    name: "apache_with_php_haproxy_memcached_and_mosquitto_answer_their_clients",
    host: servers,
    guest: no_guest,
};

fn entry_points(lab: &mut Lab) -> Outcome {
    let archive = lab.input("daemons")?;
    let image = lab.build_from(&format!("docker-archive:{archive}"), ENTRY_POINTS)?;
    let mut web = lab.run(&image, &["--memory", MEMORY])?;
    let names = web.wait_service("names", "done")?;
    expect_at(&names, "/last_exit/code", 0)?;
    for line in [
        "hosts: ::1 localhost ip6-localhost ip6-loopback 127.0.0.1 box box",
        "python: ['127.0.0.1', '::1'] 127.0.0.1",
        "cron ran a job as root",
        "root's line",
        "nobody owns nobody",
        "/dev/stdout is not opened for nobody",
        "/proc/1/fd/1 is not opened for nobody",
        "tini started",
        "dumb-init started",
        "s6 supervises, s6-svscan is process 1",
    ] {
        web.wait_stdout(line)?;
    }
    // sysvinit closes its streams: the program that it starts shows itself by its file.
    web.wait_service("sysv", "ready")?;
    let ended = web.stop()?;
    expect_in(&ended.stdout, "below tini: TERM", "the signal that tini forwarded")?;
    expect_in(&ended.stdout, "below dumb-init: TERM", "the signal that dumb-init forwarded")
}

fn servers(lab: &mut Lab) -> Outcome {
    let archive = lab.input("daemons")?;
    let image = lab.build_from(&format!("docker-archive:{archive}"), SERVERS)?;
    let (http, cache) = (lab.free_port()?, lab.free_port()?);
    let published = [format!("127.0.0.1:{http}:8080"), format!("127.0.0.1:{cache}:11211")];
    let mut web =
        lab.run(&image, &["--memory", MEMORY, "--publish", &published[0], "--publish", &published[1]])?;
    web.wait_ready()?;
    let answer = web.get(http, "/index.php?asked-from-outside")?;
    // Debian's number for `www-data` (base-passwd): the server started as root.
    expect_eq(&answer.body.as_str(), &"php says 42 as 33\n", "the page")?;
    expect_eq(&stored(cache)?, &"STORED\r\nVALUE key 0 5\r\nvalue\r\nEND\r\n".to_owned(), "memcached")?;
    // One log is a link to /dev/stdout, the other's server has changed its root and its user.
    web.wait_stdout("GET /index.php?asked-from-outside HTTP/1.0\" 200")?;
    web.wait_stdout("front web/web")?;
    web.wait_stdout("published and kept")?;
    web.stop()?.expect_code(0)
}

/// Memcached's answer to a client that stores a value and reads it back.
fn stored(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(COMMAND_LIMIT))?;
    stream.write_all(b"set key 0 0 5\r\nvalue\r\nget key\r\nquit\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
