//! What is no fault of a manifest and may still surprise its author.
//!
//! Its law: a note gives the line that decides the matter and where it belongs; whoever has written that line, or another that
//! answers the question, does not get the note.

use super::check::Plan;
use super::document;
use super::graph::Named;
use super::healthcheck;
use super::image::{Image, ImageConfig};
use super::resolve::exposed;
use crate::model::{Kind, Manifest, Service};

/// Programs that end at once unless they are process 1: s6-overlay, sysvinit, busybox and systemd by the names that images
/// give them.
const FIRST: [&str; 4] = ["init", "s6-linux-init", "systemd", "runit-init"];

/// Every note: what concerns several services once, then the others in the order of the services.
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

/// A root without capabilities is not what an entry point expects that changes owners and becomes another user.
fn roots(authors: &[Author<'_>]) -> Option<String> {
    let roots: Vec<&Author<'_>> = authors.iter().filter(|author| author.is_root_by_silence()).collect();
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
        "{who} as root, since the image names no other user, and root has no capabilities here. If {it} changes owners \
         of files, reads files of other users or becomes another user, as the entry points of redis, postgres, mysql \
         and nginx do, add {line}; if not, `capabilities: []` or `user: NAME` there says so"
    ))
}

/// Who gets notes about a service: what the author wrote, and what became of it.
struct Author<'a> {
    plan: &'a Plan,
    image: &'a ImageConfig,
    given: &'a document::Service,
    service: &'a Service,
}

impl Author<'_> {
    /// Whether it is root and neither field that decides what root may is there.
    fn is_root_by_silence(&self) -> bool {
        self.service.uid == 0 && self.given.user.is_none() && self.given.capabilities.is_none()
    }

    fn docker_for_another_user(&self) -> Option<String> {
        let Service { name, uid, .. } = self.service;
        let adds_none = *uid != 0 && self.given.capabilities.as_ref().is_some_and(|list| list.has_docker());
        adds_none.then(|| {
            format!(
                "service `{name}` runs as user {uid}: docker gives capabilities to root alone, so `docker` adds none. \
                 Name in `capabilities` those that it needs"
            )
        })
    }

    fn first_process(&self) -> Option<String> {
        let program = self.service.argv.first()?;
        let insists = FIRST.contains(&program.rsplit('/').next()?) && self.given.first_process.is_none();
        insists.then(|| {
            format!(
                "service `{}` starts `{program}`: programs of this name end at once unless they are process 1, which \
                 is Cloister's here. If this one does, add {}; if not, `first_process: cloister` there says so",
                self.service.name,
                self.line("first_process: service")
            )
        })
    }

    /// The image's check of its own command is not run.
    fn health(&self) -> Option<String> {
        let own = self.given.command.is_none() || self.plan.services.len() == 1;
        let silent = self.given.live.is_none() && self.service.kind == Kind::Service;
        let command = healthcheck::command(&self.image.healthcheck).filter(|_| own && silent)?;
        let what = format!("the image's HEALTHCHECK is not run (`{command}`).");
        if let Some(check) = healthcheck::translate(&self.image.healthcheck) {
            let ready = format!("ready: {check}");
            return Some(format!(
                "{what} To have the same asked of service `{}`, add {}; `{ready}` there has the start wait for it",
                self.service.name,
                self.line(&format!("live: {check}"))
            ));
        }
        let nearest = match exposed(self.plan, self.image).as_slice() {
            [route] => format!(
                "the nearest is that its port accepts connections: add {}",
                self.line(&format!("live: {{tcp: {}}}", route.target))
            ),
            _ => format!(
                "what there is are ports and HTTP: add {} or `live: {{http: {{port: PORT, path: PATH}}}}`",
                self.line("live: {tcp: PORT}")
            ),
        };
        Some(format!("{what} No command is run as a check here; {nearest}"))
    }

    /// A line, and where it belongs.
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
