//! The options for reaching registries, of the commands that pull.
//!
//! Invariant: without one of these options, no registry is reached unencrypted (except on this host) and none is replaced by a
//! mirror.

use clap::Args;

use crate::registry::Access;

/// The registry options.
#[derive(Debug, Default, Args)]
pub(crate) struct Registries {
    /// Use plain HTTP for this registry, as is always done for registries on this host. May be repeated
    #[arg(long, value_name = "HOST[:PORT]", value_parser = host)]
    plain_http: Vec<String>,
    /// Pull images of REGISTRY from MIRROR first, for example docker.io=mirror.example.com/hub. May be repeated
    #[arg(long, value_name = "REGISTRY=MIRROR", value_parser = mirror)]
    mirror: Vec<(String, String)>,
}

impl Registries {
    /// The options in the registry client's form.
    pub(crate) fn access(self) -> Access {
        Access { plain_http: self.plain_http, mirrors: self.mirror }
    }
}

/// Parses `HOST[:PORT]`, a registry as named in an image reference.
fn host(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is not HOST[:PORT], such as registry.example.com:5000");
    let reference = format!("{text}/name").parse::<cloister_image::oci::Reference>().map_err(|_| wrong())?;
    // A name that is not a host would be parsed as a repository on Docker Hub.
    if reference.repository == "name" || reference.repository == "library/name" {
        Ok(reference.registry)
    } else {
        Err(wrong())
    }
}

/// Parses `REGISTRY=HOST[:PORT][/PREFIX]`.
fn mirror(text: &str) -> Result<(String, String), String> {
    let wrong = || format!("`{text}` is not REGISTRY=MIRROR, such as docker.io=mirror.example.com/hub");
    let (registry, place) = text.split_once('=').ok_or_else(wrong)?;
    let (at, prefix) = place.split_once('/').unwrap_or((place, ""));
    let prefix = prefix.trim_end_matches('/');
    let name = if prefix.is_empty() { "name".to_owned() } else { format!("{prefix}/name") };
    let named = format!("{at}/{name}").parse::<cloister_image::oci::Reference>().map_err(|_| wrong())?;
    if named.repository != name {
        return Err(wrong());
    }
    let place = if prefix.is_empty() { named.registry } else { format!("{}/{prefix}", named.registry) };
    Ok((host(registry)?, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_and_mirrors_are_parsed_as_in_references() {
        assert_eq!(host("lab.example:5000"), Ok("lab.example:5000".to_owned()));
        assert_eq!(host("docker.io"), Ok("registry-1.docker.io".to_owned()));
        for wrong in ["", "lab", "http://lab.example", "lab.example/x", "u@lab.example"] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
        let hub = || "registry-1.docker.io".to_owned();
        assert_eq!(mirror("docker.io=m.example/hub/"), Ok((hub(), "m.example/hub".to_owned())));
        assert_eq!(mirror("q.io=127.0.0.1:5000"), Ok(("q.io".to_owned(), "127.0.0.1:5000".to_owned())));
        for wrong in [
            "docker.io",
            "=m.example",
            "docker.io=",
            "docker.io=m",
            "q.io=m.example/../x",
            "q.io=M.example/X",
        ] {
            assert!(mirror(wrong).is_err(), "{wrong}");
        }
    }
}
