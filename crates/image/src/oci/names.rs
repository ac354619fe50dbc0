//! Image names in layouts and archives, as users type them and as tools write them.
//!
//! Invariant: an identical name takes precedence over one that only refers to the same image.
//!
//! | written by | `app` built locally, `nginx` of Docker Hub |
//! |---|---|
//! | docker, in `RepoTags` | `app:latest`, `nginx:latest` |
//! | podman, in `RepoTags` and in `org.opencontainers.image.ref.name` | `localhost/app:latest`, `docker.io/library/nginx:latest` |
//! | docker and buildx, in `io.containerd.image.name` | `docker.io/library/app:latest`, `docker.io/library/nginx:latest` |
//! | docker and buildx, in `org.opencontainers.image.ref.name` | the tag alone: `latest` |

use super::Reference;
use super::model::Descriptor;

/// The annotation with the full name (containerd, `images.AnnotationImageName`).
const CONTAINERD: &str = "io.containerd.image.name";
/// The annotation of the specification: a name, or its last part.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// How well a name matches, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// The same text.
    Text,
    /// The same image in the same registry.
    Reference,
    /// A locally built image, whose registry podman calls `localhost`.
    Local,
}

/// How well a stored name matches the wanted one.
pub(super) fn fit(wanted: &str, stored: &str) -> Option<Fit> {
    if wanted == stored {
        return Some(Fit::Text);
    }
    let same = |wanted: &str| {
        let (wanted, stored) = (wanted.parse::<Reference>().ok()?, stored.parse::<Reference>().ok()?);
        (wanted == stored).then_some(())
    };
    let reference = same(wanted).map(|()| Fit::Reference);
    reference.or_else(|| same(&format!("localhost/{wanted}")).map(|()| Fit::Local))
}

/// The names that an index gives to an image, the full one first.
pub(super) fn of(descriptor: &Descriptor) -> impl Iterator<Item = &String> {
    let annotations = descriptor.annotations.as_ref();
    [CONTAINERD, REF_NAME].into_iter().filter_map(move |key| annotations?.get(key))
}

/// The elements of `all` whose names match `wanted` best.
pub(super) fn best<'a, T, N: Iterator<Item = &'a String>>(
    all: &'a [T],
    wanted: &str,
    names: impl Fn(&'a T) -> N,
) -> Vec<&'a T> {
    let fitting = |one| names(one).filter_map(|name| fit(wanted, name)).min().map(|fit| (fit, one));
    let fitting: Vec<(Fit, &T)> = all.iter().filter_map(fitting).collect();
    let reached = fitting.iter().map(|(fit, _)| *fit).min();
    fitting.into_iter().filter(|(fit, _)| Some(*fit) == reached).map(|(_, one)| one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_by_its_usual_name_regardless_of_the_tool_that_wrote_it() {
        let cases = [
            ("nginx:1", "nginx:1", Some(Fit::Text)),
            ("latest", "latest", Some(Fit::Text)),
            ("nginx", "nginx:latest", Some(Fit::Reference)),
            ("nginx", "docker.io/library/nginx:latest", Some(Fit::Reference)),
            ("docker.io/library/nginx", "nginx:latest", Some(Fit::Reference)),
            ("me/app:2", "docker.io/me/app:2", Some(Fit::Reference)),
            ("app", "localhost/app:latest", Some(Fit::Local)),
            ("localhost/app", "localhost/app:latest", Some(Fit::Reference)),
            ("quay.io/me/app", "quay.io/me/app:latest", Some(Fit::Reference)),
            ("quay.io/me/app", "localhost/me/app:latest", None),
            ("nginx:1", "nginx:2", None),
            ("latest", "nginx:latest", None),
            ("a name with spaces", "nginx", None),
        ];
        for (wanted, stored, expected) in cases {
            assert_eq!(fit(wanted, stored), expected, "{wanted} for {stored}");
        }
    }

    #[test]
    fn the_best_matching_name_is_selected() {
        let all = ["localhost/app:latest", "docker.io/library/app:latest", "app:latest"].map(str::to_owned);
        let best = |wanted: &str| best(&all, wanted, std::iter::once).len();
        assert_eq!((best("app:latest"), best("app"), best("nothing")), (1, 2, 0));
    }
}
