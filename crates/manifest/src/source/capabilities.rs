//! The capabilities a service keeps: names, and a keyword for the set that container engines grant.
//!
//! Invariant: the keyword is only a shorthand in the source. The measured manifest lists every name, so a later version of
//! this list cannot change what an image was built with.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::hint;
use super::names::Capability;
use super::problem::Problems;
use super::read::{FromScalar, Invalid, Read, Spanned, wrong_type};
use super::tree::{Node, Scalar, Value};

/// The keyword for [`DOCKER_SET`].
pub(super) const DOCKER: &str = "docker";

/// Docker's default capabilities of a container (moby, `daemon/pkg/oci/caps/defaults.go`), sorted, except for two:
///
/// - `mknod`: engines combine it with a device cgroup that refuses to open the new device nodes. There is none here, so a
///   service could create a node for the security module's device.
/// - `net_raw`: a container has its own network, services share one. A packet socket would read what the others send over
///   loopback.
pub(super) const DOCKER_SET: [&str; 12] = [
    "audit_write",
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "net_bind_service",
    "setfcap",
    "setgid",
    "setpcap",
    "setuid",
    "sys_chroot",
];

/// A list of capabilities, or the keyword.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities(pub(super) Vec<Spanned<Granted>>);

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Granted {
    /// Every capability of [`DOCKER_SET`].
    Docker,
    /// A single capability.
    One(Capability),
}

impl Capabilities {
    /// Their names for a service of this user, sorted, without duplicates. Docker grants its set to root only: another user
    /// has it in its bounding set, which has no effect with `no_new_privs`.
    pub(super) fn names(&self, uid: u32) -> Vec<String> {
        let granted = self.0.iter().filter(|granted| uid == 0 || granted.value != Granted::Docker);
        let mut names: Vec<String> = granted.flat_map(|granted| granted.value.names()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether the keyword is among them.
    pub(super) fn has_docker(&self) -> bool {
        self.0.iter().any(|granted| granted.value == Granted::Docker)
    }
}

impl Granted {
    fn names(&self) -> Vec<String> {
        match self {
            Self::Docker => DOCKER_SET.iter().map(|name| (*name).to_owned()).collect(),
            Self::One(capability) => vec![capability.0.clone()],
        }
    }
}

impl Read for Capabilities {
    fn expected() -> Cow<'static, str> {
        "a list of capabilities, or `docker`".into()
    }

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        match &node.value {
            Value::List(_) => Vec::read(node, problems).map(Self),
            Value::Scalar(scalar) if is_docker(scalar) => {
                Some(Self(vec![Spanned { value: Granted::Docker, span: node.span }]))
            }
            Value::Scalar(scalar) => {
                problems.push(wrong_type::<Self>(node).hint(hint::as_list(&scalar.text)));
                None
            }
            _ => {
                problems.push(wrong_type::<Self>(node));
                None
            }
        }
    }
}

impl FromScalar for Granted {
    const EXPECTED: &'static str = Capability::EXPECTED;

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        if is_docker(scalar) { Ok(Self::Docker) } else { Capability::from_scalar(scalar).map(Self::One) }
    }
}

fn is_docker(scalar: &Scalar) -> bool {
    scalar.text.eq_ignore_ascii_case(DOCKER)
}

impl JsonSchema for Capabilities {
    fn schema_name() -> Cow<'static, str> {
        "Capabilities".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let list = generator.subschema_for::<Vec<Granted>>();
        json_schema!({ "anyOf": [docker_schema(), list] })
    }
}

impl JsonSchema for Granted {
    fn schema_name() -> Cow<'static, str> {
        "Granted".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Capability>();
        json_schema!({ "anyOf": [docker_schema(), one] })
    }
}

fn docker_schema() -> Schema {
    json_schema!({
        "const": DOCKER,
        "description": "Docker's default set, except `mknod` and `net_raw`.",
    })
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    fn read(source: &str) -> Result<Vec<String>, String> {
        let mut problems = Problems::default();
        let node = tree::read(source, &mut problems).unwrap();
        let read = Capabilities::read(&node, &mut problems);
        match problems.into_report("x", source) {
            None => Ok(read.unwrap().names(0)),
            Some(report) => Err(report.to_string()),
        }
    }

    #[test]
    fn docker_stands_for_dockers_set_without_mknod_and_net_raw() {
        let names = read("docker").unwrap();
        assert_eq!(names, DOCKER_SET);
        assert!(names.is_sorted() && names.iter().all(|name| name != "mknod" && name != "net_raw"));
    }

    #[test]
    fn docker_can_be_combined_with_other_capabilities() {
        let names = read("[docker, CHOWN, sys_nice]").unwrap();
        assert_eq!(names.len(), DOCKER_SET.len() + 1);
        assert!(names.is_sorted() && names.contains(&"sys_nice".to_owned()));
        assert_eq!(read("[]").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_single_capability_gets_a_hint_with_the_list_form() {
        let report = read("net_admin").unwrap_err();
        assert!(report.contains("or `docker`") && report.contains("[net_admin]"), "{report}");
        assert!(read("{chown: true}").is_err() && read("[podman]").is_err());
    }
}
