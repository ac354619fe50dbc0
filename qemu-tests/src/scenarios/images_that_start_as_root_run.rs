//! Images whose entry points start as root: they give their data to a user, become that user, and start the server.

use serde_json::json;

use super::services_are_confined::confinement;
use crate::guest::no_guest;
use crate::lab::path_str;
use crate::scenario::{expect, expect_at, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// Redis, `PostgreSQL` and `MariaDB` as their images start them, and two jobs: one queries all three from a working directory that is
/// created for it, the other is root and reads a file that only user 999 may read. (nginx is in the registry scenario.)
const MANIFEST: &str = r#"
version: 1
root: {writable: 384MiB}
services:
  redis:
    command: [redis-start, redis-server, --save, ""]
    capabilities: docker
    ready: {tcp: 6379}
  postgres:
    command: [postgres-start, postgres]
    capabilities: docker
    ready: {tcp: 5432}
    start_timeout: 5m
  mysql:
    command: [mysql-start, mariadbd, --innodb-log-file-size=8M]
    capabilities: docker
    ready: {tcp: 3306}
    start_timeout: 5m
  key:
    kind: job
    command: [cat, /srv/app/key.pem]
    capabilities: docker
  ask:
    kind: job
    user: nobody
    working_dir: /tmp/made/here
    after: [redis, postgres, mysql]
    command:
      - /bin/sh
      - -ec
      - |
        pwd && touch mine
        redis-cli ping
        psql -h 127.0.0.1 -U postgres -Atc "select 'postgres', 6 * 7"
        mariadb -h 127.0.0.1 -u root -Ne "select concat('mysql ', 6 * 7)"
ingress: []
"#;

/// The bounding set of `capabilities: docker`, by number (`linux/capability.h`): 0, 1, 3 to 8, 10, 18, 29 and 31.
const DOCKER_MASK: u64 = 0xa004_05fb;

/// The machine's memory: for the image, three servers, and what they write.
const MEMORY: &str = "2GiB";

/// Three servers.
pub(super) const SERVERS: Scenario = Scenario {
    name: "redis_postgres_and_mysql_start_as_root_and_serve_as_their_own_users",
    host: servers,
    guest: no_guest,
};

/// The check's advice to a new user.
pub(super) const CHECKED: Scenario = Scenario {
    name: "a_check_against_a_root_image_names_the_missing_setting",
    host: checked,
    guest: no_guest,
};

fn servers(lab: &mut Lab) -> Outcome {
    let archive = lab.input("rooted")?;
    let image = lab.build_from(&format!("docker-archive:{archive}"), MANIFEST)?;
    let mut web = lab.run(&image, &["--memory", MEMORY])?;
    web.wait_service("ask", "done")?;
    for service in ["redis", "postgres", "mysql"] {
        let confinement = confinement(&web, service)?;
        let uids = confinement.pointer("/uids/0").and_then(serde_json::Value::as_u64);
        expect(uids.is_some_and(|uid| uid > 0), format_args!("{service} runs as user {uids:?}"))?;
        expect_at(&confinement, "/capabilities_bounding", DOCKER_MASK)?;
        expect_at(&confinement, "/capabilities_effective", 0)?;
        expect_at(&confinement, "/no_new_privs", json!(true))?;
    }
    let ended = web.stop()?;
    for line in ["/tmp/made/here", "PONG", "postgres|42", "mysql 42", "the key"] {
        expect_in(&ended.stdout, line, "the output of the jobs")?;
    }
    Ok(())
}

fn checked(lab: &mut Lab) -> Outcome {
    let archive = lab.input("nginx")?;
    let image = format!("docker-archive:{archive}");
    for (service, noted) in [("", true), ("capabilities: docker", false), ("user: www-data", false)] {
        let manifest = lab.manifest(&format!("version: 1\nservices:\n  web: {{{service}}}\n"))?;
        let check = lab.sleeve(&["check", path_str(&manifest)?, "--image", &image]).finish()?;
        check.expect_code(0)?;
        expect_eq(&check.stderr.contains("`capabilities: docker`"), &noted, &check.stderr)?;
    }
    Ok(())
}
