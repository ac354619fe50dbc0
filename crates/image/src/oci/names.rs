//! Names of images in layouts and archives, as people type them and as tools write them.
//!
//! Its law: a name that is written there word for word is meant before one that only means the same.
//!
//! | who writes it | `app` built locally, `nginx` of Docker Hub |
//! |---|---|
//! | docker, in `RepoTags` | `app:latest`, `nginx:latest` |
//! | podman, in `RepoTags` and in `org.opencontainers.image.ref.name` | `localhost/app:latest`, `docker.io/library/nginx:latest` |
//! | docker and buildx, in `io.containerd.image.name` | `docker.io/library/app:latest`, `docker.io/library/nginx:latest` |
//! | docker and buildx, in `org.opencontainers.image.ref.name` | the tag alone: `latest` |

use super::Reference;
use super::model::Descriptor;

/// The annotation of a whole name (containerd, `images.AnnotationImageName`).
const CONTAINERD: &str = "io.containerd.image.name";
/// The annotation of the specification: a name, or its last part.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// How well a name fits, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// It is the same text.
    Text,
    /// It is the same image in the same registry.
    Meaning,
    /// It was built where it was saved, and podman calls that place `localhost`.
    Local,
}

/// How well a name that is stored is the one that is wanted.
pub(super) fn fit(wanted: &str, stored: &str) -> Option<Fit> {
    if wanted == stored {
        return Some(Fit::Text);
    }
    let same = |wanted: &str| {
        let (wanted, stored) = (wanted.parse::<Reference>().ok()?, stored.parse::<Reference>().ok()?);
        (wanted == stored).then_some(())
    };
    let meaning = same(wanted).map(|()| Fit::Meaning);
    meaning.or_else(|| same(&format!("localhost/{wanted}")).map(|()| Fit::Local))
}

/// The names that an index gives to an image, the whole one first.
pub(super) fn of(descriptor: &Descriptor) -> impl Iterator<Item = &String> {
    let annotations = descriptor.annotations.as_ref();
    [CONTAINERD, REF_NAME].into_iter().filter_map(move |key| annotations?.get(key))
}

/// Those of `all` whose names fit `wanted` best.
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
    fn an_image_is_found_by_what_people_type_whoever_wrote_its_name() {
        let cases = [
            ("nginx:1", "nginx:1", Some(Fit::Text)),
            ("latest", "latest", Some(Fit::Text)),
            ("nginx", "nginx:latest", Some(Fit::Meaning)),
            ("nginx", "docker.io/library/nginx:latest", Some(Fit::Meaning)),
            ("docker.io/library/nginx", "nginx:latest", Some(Fit::Meaning)),
            ("me/app:2", "docker.io/me/app:2", Some(Fit::Meaning)),
            ("app", "localhost/app:latest", Some(Fit::Local)),
            ("localhost/app", "localhost/app:latest", Some(Fit::Meaning)),
            ("quay.io/me/app", "quay.io/me/app:latest", Some(Fit::Meaning)),
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
    fn the_best_name_is_meant() {
        let all = ["localhost/app:latest", "docker.io/library/app:latest", "app:latest"].map(str::to_owned);
        let best = |wanted: &str| best(&all, wanted, std::iter::once).len();
        assert_eq!((best("app:latest"), best("app"), best("nothing")), (1, 2, 0));
    }
}
