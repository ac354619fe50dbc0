//! From an input and a manifest to an artifact, in two calls.
//!
//! Its law: what comes out depends on what the paths hold, never on where they are, who reads them, or when.
//!
//! [`open`] reads the application. The manifest is then resolved against it by the caller, who can show every fault in it
//! to its author; [`pack`] writes the artifact.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use cloister_manifest::Manifest;
use cloister_manifest::model::ModelError;

use crate::artifact::{
    ApplicationRecord, ArtifactFault, BuildRecord, LayerRecord, OsRecord, Part, RootForm, ToolRecord, Writer,
};
use crate::cpio::WriteFault;
use crate::digest::Digest;
use crate::directory::{self, DirectoryFault};
use crate::layers::{self, LayerFault, Notes};
use crate::limits::Limits;
use crate::oci::{self, Architecture, Config, Image, OciFault, Select};
use crate::ramdisk::{self, AppRoot, OsFault, OsRelease};
use crate::spool::Spool;
use crate::tree::Tree;

/// Where an application is read from. What is in a registry has been fetched into a layout before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// An OCI image layout.
    Layout {
        /// The directory.
        path: PathBuf,
        /// Which image in it.
        select: Select,
    },
    /// What `docker save` writes.
    DockerArchive {
        /// The file.
        path: PathBuf,
        /// Which image in it.
        select: Select,
    },
    /// Blobs that were fetched from a registry.
    Fetched {
        /// A directory with `blobs/sha256`.
        blobs: PathBuf,
        /// The manifest's digest, or the index's that names it.
        digest: Digest,
        /// The image's name in the registry, without a tag.
        repository: String,
    },
    /// A root file system.
    Directory {
        /// The directory.
        path: PathBuf,
    },
}

/// How an application is read.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// The machine it must be for.
    pub architecture: Architecture,
    /// A directory on a disk with room for the application unpacked. Nothing stays in it.
    pub scratch: &'a Path,
    /// How much it may be.
    pub limits: Limits,
    /// If it is there: the latest modification time, in seconds since 1970 (`SOURCE_DATE_EPOCH`). Later ones become it.
    pub clamp_mtime: Option<i64>,
}

/// An application that has been read.
#[derive(Debug)]
pub struct Application {
    /// Its root.
    pub tree: Tree,
    /// How its image says it is run. A directory says nothing.
    pub config: Config,
    /// What was left out.
    pub notes: Notes,
    /// Where it came from.
    pub record: ApplicationRecord,
    architecture: Architecture,
    clamp_mtime: Option<i64>,
}

/// What else goes into an artifact.
#[derive(Clone, Debug)]
pub struct Pack<'a> {
    /// The manifest, resolved against the application.
    pub manifest: &'a Manifest,
    /// The digest of the manifest as people wrote it, where it was in a file.
    pub manifest_source: Option<Digest>,
    /// The directory with the release of the operating system.
    pub os: &'a Path,
    /// The form of the root in ramdisk 2.
    pub root: RootForm,
    /// Who packs.
    pub tool: ToolRecord,
    /// Where the artifact is to be.
    pub output: &'a Path,
}

/// Why there is no artifact. The sources below say who must act.
#[derive(Debug, thiserror::Error)]
pub enum BuildFault {
    /// The input is not what it is said to be, or not for this machine.
    #[error("the image {} cannot be used", .path.display())]
    Input {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        fault: OciFault,
    },
    /// A layer is refused.
    #[error("layer {number} of {count} ({digest}) is refused")]
    Layer {
        /// Which, from 1.
        number: usize,
        /// Of how many.
        count: usize,
        /// Its digest, or that of the tar in it.
        digest: Digest,
        /// Why.
        #[source]
        fault: Box<LayerFault>,
    },
    /// The directory cannot be used.
    #[error("the directory {} cannot be used", .path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        fault: DirectoryFault,
    },
    /// The manifest cannot be written as the enclave reads it.
    #[error("the manifest cannot be written")]
    Manifest(#[source] ModelError),
    /// The release of the operating system cannot be used.
    #[error("the operating system in {} cannot be used", .path.display())]
    Os {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        fault: OsFault,
    },
    /// The application does not go into a ramdisk.
    #[error("the application's ramdisk cannot be written")]
    Ramdisk(#[source] WriteFault),
    /// The artifact cannot be written.
    #[error("the artifact cannot be written")]
    Artifact(#[from] ArtifactFault),
    /// The scratch directory cannot be used.
    #[error("the scratch directory {} cannot be used", .path.display())]
    Scratch {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Reads an application.
pub fn open(input: &Input, options: &Options<'_>) -> Result<Application, BuildFault> {
    let scratch = |source| BuildFault::Scratch { path: options.scratch.to_owned(), source };
    let mut spool = Spool::new(options.scratch).map_err(scratch)?;
    let mut application = match input {
        Input::Directory { path } => open_directory(path, &mut spool, options)?,
        _ => open_image(input, &mut spool, options)?,
    };
    if let Some(latest) = options.clamp_mtime {
        application.tree.clamp_mtime(latest);
    }
    if let ApplicationRecord::Directory { tree } = &mut application.record {
        *tree = application.tree.digest().map_err(scratch)?;
    }
    Ok(application)
}

fn open_directory(path: &Path, spool: &mut Spool, options: &Options<'_>) -> Result<Application, BuildFault> {
    let fault = |fault| BuildFault::Directory { path: path.to_owned(), fault };
    let (tree, notes) = directory::read(path, spool, &options.limits).map_err(fault)?;
    Ok(Application {
        tree,
        config: Config::default(),
        notes,
        record: ApplicationRecord::Directory { tree: Digest::of(b"") },
        architecture: options.architecture,
        clamp_mtime: options.clamp_mtime,
    })
}

fn open_image(input: &Input, spool: &mut Spool, options: &Options<'_>) -> Result<Application, BuildFault> {
    let (image, repository) = find_image(input, options)?;
    let mut tree = Tree::new();
    let notes =
        layers::apply(&mut tree, spool, &image.layers, &options.limits).map_err(|(index, fault)| {
            let digest = image
                .layers
                .get(index)
                .map_or(image.config_digest, |layer| layer.digest.unwrap_or(layer.diff_id));
            BuildFault::Layer { number: index + 1, count: image.layers.len(), digest, fault: Box::new(fault) }
        })?;
    let layer = |layer: &layers::Layer| LayerRecord { digest: layer.digest, diff_id: layer.diff_id };
    let record = ApplicationRecord::Image {
        repository,
        manifest: image.manifest,
        config: image.config_digest,
        layers: image.layers.iter().map(layer).collect(),
    };
    let config = image.config.config.unwrap_or_default();
    let (architecture, clamp_mtime) = (options.architecture, options.clamp_mtime);
    Ok(Application { tree, config, notes, record, architecture, clamp_mtime })
}

fn find_image(input: &Input, options: &Options<'_>) -> Result<(Image, Option<String>), BuildFault> {
    let architecture = options.architecture;
    let (path, image, repository) = match input {
        Input::Layout { path, select } => (path, oci::open_layout(path, select, architecture), None),
        Input::DockerArchive { path, select } => {
            let image =
                oci::open_docker_archive(path, select, architecture, options.scratch, &options.limits);
            (path, image, None)
        }
        Input::Fetched { blobs, digest, repository } => {
            let layout = oci::Layout::of_blobs(blobs);
            let image = oci::find(&layout, *digest, architecture);
            (blobs, image, Some(repository.clone()))
        }
        Input::Directory { path } => (path, Err(OciFault::NotALayout("oci-layout")), None),
    };
    let image = image.map_err(|fault| BuildFault::Input { path: path.clone(), fault })?;
    Ok((image, repository))
}

/// Writes the artifact, and gives its name: the digest of its manifest.
pub fn pack(application: &Application, pack: &Pack<'_>) -> Result<Digest, BuildFault> {
    let os_fault = |fault| BuildFault::Os { path: pack.os.to_owned(), fault };
    let release = ramdisk::read_os(pack.os, application.architecture).map_err(os_fault)?;
    let manifest = pack.manifest.to_json().map_err(BuildFault::Manifest)?;
    let mut writer = Writer::new(pack.output)?;
    write_os(&release, pack.os, &mut writer)?;
    writer.bytes(Part::Manifest, &manifest)?;
    writer.stream(Part::AppRamdisk, |out| {
        let root = AppRoot::Plain(&application.tree);
        ramdisk::write_app(&manifest, root, out).map(drop).map_err(BuildFault::Ramdisk)
    })?;
    let record = record(application, pack, &release, writer.outputs());
    writer.bytes(Part::BuildRecord, &json(&record, pack.output, Part::BuildRecord)?)?;
    Ok(writer.finish()?)
}

fn write_os(release: &OsRelease, os: &Path, writer: &mut Writer) -> Result<(), BuildFault> {
    let kernel = OsRelease::kernel_path(os);
    let ramdisk = OsRelease::ramdisk_path(os);
    let files =
        [(Part::Kernel, kernel, release.kernel.digest), (Part::OsRamdisk, ramdisk, release.ramdisk.digest)];
    for (part, path, expected) in files {
        if writer.file(part, &path)?.digest != expected {
            return Err(BuildFault::Os { path: os.to_owned(), fault: OsFault::Changed(path) });
        }
    }
    writer.bytes(Part::CommandLine, release.cmdline.as_bytes())?;
    writer.bytes(Part::OsRelease, &json(release, os, Part::OsRelease)?)?;
    Ok(())
}

fn record(
    application: &Application,
    pack: &Pack<'_>,
    release: &OsRelease,
    outputs: BTreeMap<String, crate::artifact::Output>,
) -> BuildRecord {
    let record = outputs.get(Part::OsRelease.title()).map_or(release.kernel.digest, |output| output.digest);
    BuildRecord {
        version: crate::artifact::RECORD_VERSION,
        tool: pack.tool.clone(),
        application: application.record.clone(),
        os: OsRecord { version: release.version.clone(), record },
        manifest_source: pack.manifest_source,
        root: pack.root,
        clamp_mtime: application.clamp_mtime,
        outputs,
    }
}

fn json(document: &impl serde::Serialize, path: &Path, part: Part) -> Result<Vec<u8>, BuildFault> {
    let fault = |source| ArtifactFault::Document { path: path.to_owned(), title: part.title(), source };
    let mut bytes = serde_json::to_vec_pretty(document).map_err(fault)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests;
