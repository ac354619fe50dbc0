//! The valid forms of names: services, users, paths, variables, capabilities, system calls.
//!
//! Invariant: a name that passes here can be used unchanged inside: as a cgroup's name, a path, an environment variable.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::hint;
use super::read::{FromScalar, Invalid};
use super::tree::Scalar;
use crate::model;

/// The maximum length of a service name in bytes, as in the wire format (`cloister_wire::logs::MAX_NAME`).
const MAX_NAME: usize = 63;

/// Linux's maximum path length in bytes, without the NUL (`PATH_MAX`).
const MAX_PATH: usize = 4095;

/// The largest user and group id, as in Docker and runc. To the kernel the two largest 32-bit numbers have special meanings,
/// and the services' views rely on a group that none of them can have.
pub(super) const MAX_ID: u32 = 2_147_483_647;

/// Capabilities by number (`linux/capability.h`, Linux 6.12), without `CAP_`.
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// Declares a type around a string, with its schema.
macro_rules! name {
    ($(#[$meta:meta])* $name:ident, $schema:tt) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) struct $name(pub(super) String);

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

name!(
    /// The name of a service, or of the enclave.
    ServiceName,
    {
        "type": "string",
        "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        "maxLength": 63,
        "description": "Lower-case letters, digits and hyphens: `web`, `db-1`.",
    }
);

name!(
    /// A user by name or number, optionally with a group.
    UserSpec,
    {
        "type": ["string", "integer"],
        "description": "A user of the image by name or number, with or without a group: `nginx`, `101`, `nginx:www-data`.",
        "examples": ["nginx", 101, "101:101"],
    }
);

name!(
    /// A group by name or number.
    GroupSpec,
    { "type": ["string", "integer"], "description": "A group of the image by name or number." }
);

name!(
    /// An absolute path without `.`, `..` or empty parts.
    Path,
    {
        "type": "string",
        "pattern": "^/",
        "description": "An absolute path in the image.",
        "examples": ["/srv"],
    }
);

name!(
    /// The path of an HTTP request.
    HttpPath,
    {
        "type": "string",
        "pattern": "^/[!-~]*$",
        "description": "The path of an HTTP request, with its query if it has one.",
        "examples": ["/healthz"],
    }
);

name!(
    /// The name of an environment variable.
    EnvName,
    { "type": "string", "pattern": "^[^=\\u0000]+$" }
);

/// A capability in lower case, without `CAP_`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Capability(pub(super) String);

impl Capability {
    /// The number of the capability with this name.
    pub(super) fn number(name: &str) -> Option<usize> {
        CAPABILITIES.iter().position(|known| *known == name)
    }

    /// The names of the capabilities in a mask.
    pub(super) fn names(mask: u64) -> impl Iterator<Item = &'static str> {
        CAPABILITIES
            .into_iter()
            .enumerate()
            .filter(move |(number, _)| mask >> number & 1 == 1)
            .map(|(_, name)| name)
    }
}

impl JsonSchema for Capability {
    fn schema_name() -> Cow<'static, str> {
        "Capability".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "anyOf": [{ "enum": CAPABILITIES.as_slice() }, { "pattern": "^([Cc][Aa][Pp]_)?[A-Za-z_]+$" }],
            "description": "A capability as in capabilities(7), with or without `CAP_`: `net_bind_service`.",
        })
    }
}

/// A system call that the default filter refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Syscall(pub(super) String);

impl JsonSchema for Syscall {
    fn schema_name() -> Cow<'static, str> {
        "Syscall".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "enum": model::REFUSED_SYSCALLS.as_slice(),
            "description": "A system call that the default filter refuses.",
        })
    }
}

impl FromScalar for ServiceName {
    const EXPECTED: &'static str = "a name such as `web` or `db-1`";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        let text = &scalar.text;
        let letters = text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if text.len() > MAX_NAME {
            return Err(Invalid::because(format!("{} characters; the maximum is {MAX_NAME}", text.len())));
        }
        if text.is_empty() || !letters || text.starts_with('-') || text.ends_with('-') {
            let reason = "expected lower-case letters, digits, and hyphens between them".to_owned();
            return Err(Invalid { reason, hint: name_suggestion(text) });
        }
        Ok(Self(text.clone()))
    }
}

/// A valid spelling of an invalid name.
fn name_suggestion(text: &str) -> Option<String> {
    let fixed: String =
        text.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let fixed = fixed.trim_matches('-');
    (!fixed.is_empty()).then(|| format!("write `{fixed}`"))
}

impl FromScalar for UserSpec {
    const EXPECTED: &'static str = "a user such as `nginx`, `101` or `nginx:www-data`";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        let (user, group) =
            scalar.text.split_once(':').map_or((scalar.text.as_str(), None), |(u, g)| (u, Some(g)));
        check_account(user)?;
        group.map_or(Ok(()), check_account)?;
        Ok(Self(scalar.text.clone()))
    }
}

impl FromScalar for GroupSpec {
    const EXPECTED: &'static str = "a group such as `www-data` or `33`";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        check_account(&scalar.text)?;
        Ok(Self(scalar.text.clone()))
    }
}

/// A name or a number of `/etc/passwd` or `/etc/group`, whose fields end with a colon.
fn check_account(text: &str) -> Result<(), Invalid> {
    if text.is_empty() {
        return Err(Invalid::because("the name is empty"));
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, ':' | ',')) {
        return Err(Invalid::because("a name cannot contain a space, a comma or a second colon"));
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if digits && text.parse::<u32>().ok().is_none_or(|id| id > MAX_ID) {
        return Err(Invalid::because(format!("the largest id is {MAX_ID}")));
    }
    Ok(())
}

impl FromScalar for Path {
    const EXPECTED: &'static str = "an absolute path";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        check_path(&scalar.text)?;
        Ok(Self(scalar.text.clone()))
    }
}

/// Checks that a text is an absolute, normalized path.
fn check_path(text: &str) -> Result<(), Invalid> {
    if !text.starts_with('/') {
        return Err(Invalid::because("it does not start with `/`").hint(format!("write `/{text}`")));
    }
    if text.len() > MAX_PATH {
        return Err(Invalid::because(format!("{} bytes; the maximum is {MAX_PATH}", text.len())));
    }
    if text.contains('\0') {
        return Err(Invalid::because("it contains a NUL byte"));
    }
    let plain: Vec<_> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if plain.contains(&"..") {
        return Err(Invalid::because("`..` is not allowed").hint("write the path without it"));
    }
    let plain = format!("/{}", plain.join("/"));
    if plain != text {
        return Err(Invalid::because("the path is not normalized").hint(format!("write `{plain}`")));
    }
    Ok(())
}

impl FromScalar for HttpPath {
    const EXPECTED: &'static str = "the path of a request, such as `/healthz`";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        if !scalar.text.starts_with('/') {
            return Err(Invalid::because("it does not start with `/`"));
        }
        // A space or a line break would end the request's line early (RFC 9112, section 3).
        if !scalar.text.bytes().all(|b| b.is_ascii_graphic()) || scalar.text.len() > MAX_PATH {
            return Err(Invalid::because("only printable ASCII without spaces is allowed")
                .hint("percent-encode the rest"));
        }
        Ok(Self(scalar.text.clone()))
    }
}

impl FromScalar for EnvName {
    const EXPECTED: &'static str = "the name of an environment variable";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        if scalar.text.is_empty() || scalar.text.contains(['=', '\0']) {
            return Err(Invalid::because("a name cannot be empty or contain `=`"));
        }
        Ok(Self(scalar.text.clone()))
    }
}

impl FromScalar for Capability {
    const EXPECTED: &'static str = "a Linux capability";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        let name = scalar.text.to_ascii_lowercase();
        let name = name.strip_prefix("cap_").unwrap_or(&name);
        if name == "all" {
            return Err(Invalid::because("list only the capabilities that the service needs"));
        }
        match CAPABILITIES.iter().find(|known| **known == name) {
            Some(known) => Ok(Self((*known).to_owned())),
            None => Err(Invalid {
                reason: "see capabilities(7)".into(),
                hint: hint::did_you_mean(name, CAPABILITIES),
            }),
        }
    }
}

impl FromScalar for Syscall {
    const EXPECTED: &'static str = "a system call that the default filter refuses";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        let text = &scalar.text;
        if model::REFUSED_SYSCALLS.contains(&text.as_str()) {
            return Ok(Self(text.clone()));
        }
        let hint = hint::did_you_mean(text, model::REFUSED_SYSCALLS);
        Err(Invalid { reason: "only calls that the filter refuses can be listed".into(), hint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Scalar {
        Scalar { text: text.to_owned(), plain: true }
    }

    #[test]
    fn a_service_name_is_a_dns_label() {
        for name in ["a", "web", "db-1", "0", &"x".repeat(63)] {
            assert!(ServiceName::from_scalar(&plain(name)).is_ok(), "{name}");
        }
        for name in ["", "-a", "a-", "Web", "a_b", "a.b", "ä", &"x".repeat(64)] {
            assert!(ServiceName::from_scalar(&plain(name)).is_err(), "{name}");
        }
        let hint = ServiceName::from_scalar(&plain("My_Service")).unwrap_err().hint;
        assert_eq!(hint.as_deref(), Some("write `my-service`"));
    }

    #[test]
    fn a_path_must_be_absolute_and_normalized() {
        for path in ["/", "/a", "/a/b.c", "/..a"] {
            assert!(Path::from_scalar(&plain(path)).is_ok(), "{path}");
        }
        for path in ["", "a", "//", "/a/", "/a//b", "/./a", "/a/..", "/a\0"] {
            assert!(Path::from_scalar(&plain(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn capabilities_are_accepted_in_every_spelling() {
        for text in ["net_bind_service", "CAP_NET_BIND_SERVICE", "cap_net_bind_service"] {
            assert_eq!(Capability::from_scalar(&plain(text)), Ok(Capability("net_bind_service".into())));
        }
        let invalid = Capability::from_scalar(&plain("net_bind")).unwrap_err();
        assert_eq!(invalid.hint.as_deref(), Some("did you mean `net_bind_service`?"));
        let invalid = Capability::from_scalar(&plain("sysadmin")).unwrap_err();
        assert_eq!(invalid.hint.as_deref(), Some("did you mean `sys_admin`?"));
    }

    #[test]
    fn a_request_path_cannot_inject_headers() {
        assert!(HttpPath::from_scalar(&plain("/a?b=c&d")).is_ok());
        for path in ["a", "/a b", "/a\r\nHost: x", "/ä"] {
            assert!(HttpPath::from_scalar(&plain(path)).is_err(), "{path}");
        }
    }
}
