//! Whether an enclave image can be loaded by a machine.
//!
//! Its law: what no machine can load is refused by the build, with the number of each; what one backend can load and another
//! cannot is warned of by the build and refused by a launch on the other, before a machine is started.

use cloister_image::artifact::{Artifact, Part};
use cloister_image::eif::Kind;

use crate::app::{App, Source};
use crate::error::{Error, Result};
use crate::values::show_size;

use super::contract::Backend;
use super::{list, memory};

/// What makes an image smaller.
const SMALLER: &str = "make the application smaller: all of its root is in the ramdisk, compressed; data that is large or \
                       changes can be fetched by a service";

/// The most that a machine loads.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// The backend that makes it.
    backend: &'static str,
    /// Bytes of ramdisk.
    bytes: u64,
}

impl Room {
    fn of(backend: &dyn Backend, kernel: u64) -> Self {
        Self { backend: backend.name(), bytes: backend.room(kernel) }
    }
}

/// Refuses a launch of `app` on a machine that cannot load it.
pub(crate) fn check_launch(app: &App, backend: &dyn Backend) -> Result<()> {
    fits(ramdisks(&app.source), Room::of(backend, memory::of_kernel(&app.source)?))
}

fn fits(ramdisks: u64, room: Room) -> Result<()> {
    if ramdisks <= room.bytes {
        return Ok(());
    }
    Err(Error::operator(format!("the image is too large for {}: {}", room.backend, needs(ramdisks, room)))
        .hint(SMALLER))
}

/// Refuses an image that no machine here can load, unless it is meant for hardware too. Answers what to warn of.
pub(crate) fn check_build(artifact: Artifact, for_hardware: bool) -> Result<Vec<String>> {
    let source = Source::Artifact(artifact);
    let kernel = memory::of_kernel(&source)?;
    let rooms: Vec<Room> = list::all().iter().map(|backend| Room::of(&**backend, kernel)).collect();
    judge(ramdisks(&source), &rooms, for_hardware)
}

fn judge(ramdisks: u64, rooms: &[Room], for_hardware: bool) -> Result<Vec<String>> {
    let small: Vec<Room> = rooms.iter().copied().filter(|room| room.bytes < ramdisks).collect();
    if !small.is_empty() && small.len() == rooms.len() && !for_hardware {
        let list: Vec<String> = small.iter().map(|room| needs(ramdisks, *room)).collect();
        return Err(Error::author("the enclave image is too large for every machine")
            .because(std::io::Error::other(list.join("; ")))
            .hint(SMALLER));
    }
    let warning =
        |room: &Room| format!("warning: {} cannot run this image: {}", room.backend, needs(ramdisks, *room));
    Ok(small.iter().map(warning).collect())
}

fn needs(ramdisks: u64, room: Room) -> String {
    format!("its ramdisks have {}, and {} loads {}", show_size(ramdisks), room.backend, show_size(room.bytes))
}

/// How many bytes of ramdisk are loaded.
fn ramdisks(source: &Source) -> u64 {
    match source {
        Source::Artifact(artifact) => {
            artifact.size(Part::OsRamdisk).saturating_add(artifact.size(Part::AppRamdisk))
        }
        Source::Eif(file) => {
            let sections = file.explanation.sections.iter().filter(|section| section.kind == Kind::Ramdisk);
            sections.map(|section| section.size).fold(0, u64::saturating_add)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn rooms() -> Vec<Room> {
        // A kernel that needs 48 MiB, which is what ours needs.
        list::all().iter().map(|backend| Room::of(&**backend, 48 << 20)).collect()
    }

    #[test]
    fn an_image_that_no_machine_loads_is_refused_with_the_number_of_each() {
        let rooms = rooms();
        let error = judge(5 * GIB / 2, &rooms, false).unwrap_err();
        let reasons = error.reasons().concat();
        for number in ["ramdisks have 2.5 GiB", "qemu loads 1.9 GiB", "qemu-nitro loads 1.9 GiB"] {
            assert!(reasons.contains(number), "{reasons}");
        }
        for room in rooms {
            let error = fits(5 * GIB / 2, room).unwrap_err();
            assert!(error.to_string().contains("its ramdisks have 2.5 GiB"), "{error}");
            assert!(error.to_string().contains("loads 1.9 GiB"), "{error}");
        }
    }

    #[test]
    fn an_image_that_one_machine_loads_is_warned_of_at_the_build_and_refused_on_the_others() {
        let (small, large) =
            (Room { backend: "small", bytes: GIB }, Room { backend: "large", bytes: 3 * GIB });
        let warnings = judge(2 * GIB, &[small, large], false).unwrap();
        assert_eq!(
            warnings,
            ["warning: small cannot run this image: its ramdisks have 2 GiB, and small loads 1 GiB"]
        );
        assert!(fits(2 * GIB, small).is_err() && fits(2 * GIB, large).is_ok());
    }

    #[test]
    fn an_image_for_hardware_that_is_too_large_for_the_machines_here_is_warned_of_at_the_build() {
        let warnings = judge(5 * GIB / 2, &rooms(), true).unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings.concat().contains("qemu cannot run this image"), "{warnings:?}");
    }

    #[test]
    fn an_image_that_every_machine_loads_is_neither_refused_nor_warned_of() {
        assert!(judge(GIB, &rooms(), false).unwrap().is_empty());
        assert!(rooms().into_iter().all(|room| fits(GIB, room).is_ok()));
    }
}
