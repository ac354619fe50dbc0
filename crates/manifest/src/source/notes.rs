//! Notes on settings that are valid and may still surprise the manifest's author.
//!
//! Invariant: a note gives the line that settles the question and its place in the manifest; a manifest that contains that
//! line, or another that settles the question, does not get the note.

use super::check::Plan;
use super::document;
use super::graph::Named;
use super::healthcheck;
use super::image::{Image, ImageConfig};
use super::resolve::exposed;
use crate::model::{Kind, Manifest, Service};

/// Programs that exit at once unless they are process 1: s6-overlay, sysvinit, busybox and systemd, by the names that images
/// use.
const FIRST: [&str; 4] = ["init", "s6-linux-init", "systemd", "runit-init"];

/// All notes: first those that concern several services, then the others in the order of the services.
pub(super) fn notes(plan: &Plan, image: &Image<'_>, manifest: &Manifest) -> Vec<String> {
    let pairs = plan.services.iter().zip(&manifest.services);
    let author = |(named, service)| {
        let named: &Named = named;
        Author { plan, image: image.config, given: &named.service, service }
    };
    let authors: Vec<Author<'_>> = pairs.map(author).collect();
    let mut notes: Vec<String> = roots(&authors).into_iter().collect();
    for author in &authors {
        notes.extend(author.docker_for_another_user());
        notes.extend(author.first_process());
        notes.extend(author.health());
    }
    notes
}

/// An entry point that changes owners and switches to another user expects root to have capabilities.
fn roots(authors: &[Author<'_>]) -> Option<String> {
    let roots: Vec<&Author<'_>> = authors.iter().filter(|author| author.is_root_by_default()).collect();
    let (who, it, line) = match roots.as_slice() {
        [] => return None,
        [only] => (format!("service `{}` runs", only.service.name), "it", only.line("capabilities: docker")),
        [others @ .., last] => {
            let others: Vec<_> = others.iter().map(|author| format!("`{}`", author.service.name)).collect();
            let who = format!("services {} and `{}` run", others.join(", "), last.service.name);
            (who, "one of them", "`capabilities: docker` under its name in `services:`".to_owned())
        }
    };
    Some(format!(
        "{who} as root because the image names no other user, and root has no capabilities by default. If {it} changes \
         file owners, reads files of other users or switches to another user, as the entry points of redis, postgres, \
         mysql and nginx do, add {line}; if not, confirm with `capabilities: []` or `user: NAME` there"
    ))
}

/// What notes about a service are based on: what the author wrote, and what it resolved to.
struct Author<'a> {
    plan: &'a Plan,
    image: &'a ImageConfig,
    given: &'a document::Service,
    service: &'a Service,
}

impl Author<'_> {
    /// Whether it runs as root and the manifest sets neither field that would confirm this.
    fn is_root_by_default(&self) -> bool {
        self.service.uid == 0 && self.given.user.is_none() && self.given.capabilities.is_none()
    }

    fn docker_for_another_user(&self) -> Option<String> {
        let Service { name, uid, .. } = self.service;
        let adds_none = *uid != 0 && self.given.capabilities.as_ref().is_some_and(|list| list.has_docker());
        adds_none.then(|| {
            format!(
                "service `{name}` runs as user {uid}: docker grants capabilities to root only, so `docker` adds none. \
                 List those that it needs by name in `capabilities`"
            )
        })
    }

    fn first_process(&self) -> Option<String> {
        let program = self.service.argv.first()?;
        let needs_process_1 =
            FIRST.contains(&program.rsplit('/').next()?) && self.given.first_process.is_none();
        needs_process_1.then(|| {
            format!(
                "service `{}` starts `{program}`: programs of this name exit at once unless they are process 1, which \
                 is Cloister's own program by default. If this one does, add {}; if not, confirm with \
                 `first_process: cloister` there",
                self.service.name,
                self.line("first_process: service")
            )
        })
    }

    /// The image's check of its own command is not run.
    fn health(&self) -> Option<String> {
        let own = self.given.command.is_none() || self.plan.services.len() == 1;
        let unchecked = self.given.live.is_none() && self.service.kind == Kind::Service;
        let command = healthcheck::command(&self.image.healthcheck).filter(|_| own && unchecked)?;
        let what = format!("the image's HEALTHCHECK is not run (`{command}`).");
        if let Some(check) = healthcheck::translate(&self.image.healthcheck) {
            let ready = format!("ready: {check}");
            return Some(format!(
                "{what} To make the same check of service `{}`, add {}; `{ready}` there makes its start wait for it",
                self.service.name,
                self.line(&format!("live: {check}"))
            ));
        }
        let nearest = match exposed(self.plan, self.image).as_slice() {
            [route] => format!(
                "the closest check is that its port accepts connections: add {}",
                self.line(&format!("live: {{tcp: {}}}", route.target))
            ),
            _ => format!(
                "TCP and HTTP checks are supported: add {} or `live: {{http: {{port: PORT, path: PATH}}}}`",
                self.line("live: {tcp: PORT}")
            ),
        };
        Some(format!("{what} Checks do not run commands; {nearest}"))
    }

    /// A line, and its place in the manifest.
    fn line(&self, line: &str) -> String {
        let document = &self.plan.document;
        if document.services.is_some() {
            format!("`{line}` under `{}:` in `services:`", self.service.name)
        } else if document.service.is_some() {
            format!("`{line}` under `service:`")
        } else {
            format!("`service: {{{line}}}`")
        }
    }
}
