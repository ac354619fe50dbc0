//! Reads an application from any of the input forms.
//!
//! Invariant: the resulting tree and record depend on the contents of the input alone, regardless of its form.

use std::path::Path;

use cloister_manifest::source::ImageConfig;

use super::{Application, BuildError, Input, Options, configured, places};
use crate::artifact::{ApplicationRecord, LayerRecord};
use crate::digest::Digest;
use crate::oci::{self, Image, OciError};
use crate::spool::Spool;
use crate::tree::Tree;
use crate::{directory, layers};

/// Reads an application.
pub fn open(input: &Input, options: &Options<'_>) -> Result<Application, BuildError> {
    let scratch = |source| BuildError::Scratch { path: options.scratch.to_owned(), source };
    let mut spool = Spool::new(options.scratch).map_err(scratch)?;
    let mut application = match input {
        Input::Directory { path } => open_directory(path, &mut spool, options)?,
        _ => open_image(input, &mut spool, options)?,
    };
    places::make_volumes(&mut application);
    if let Some(latest) = options.clamp_mtime {
        application.tree.clamp_mtime(latest);
    }
    if let ApplicationRecord::Directory { tree } = &mut application.record {
        *tree = application.tree.digest().map_err(scratch)?;
    }
    Ok(application)
}

fn open_directory(path: &Path, spool: &mut Spool, options: &Options<'_>) -> Result<Application, BuildError> {
    let in_directory = |error| BuildError::Directory { path: path.to_owned(), error };
    let (tree, notes) = directory::read(path, spool, &options.limits).map_err(in_directory)?;
    Ok(Application {
        tree,
        config: ImageConfig::default(),
        notes,
        record: ApplicationRecord::Directory { tree: Digest::of(b"") },
        architecture: options.architecture,
        clamp_mtime: options.clamp_mtime,
    })
}

fn open_image(input: &Input, spool: &mut Spool, options: &Options<'_>) -> Result<Application, BuildError> {
    let (image, repository) = find_image(input, options)?;
    let mut tree = Tree::new();
    let mut notes =
        layers::apply(&mut tree, spool, &image.layers, &options.limits).map_err(|(index, error)| {
            let digest = image
                .layers
                .get(index)
                .map_or(image.config_digest, |layer| layer.digest.unwrap_or(layer.diff_id));
            BuildError::Layer { number: index + 1, count: image.layers.len(), digest, error: Box::new(error) }
        })?;
    let layer = |layer: &layers::Layer| LayerRecord { digest: layer.digest, diff_id: layer.diff_id };
    let record = ApplicationRecord::Image {
        repository,
        manifest: image.manifest,
        config: image.config_digest,
        layers: image.layers.iter().map(layer).collect(),
    };
    configured::variant(&image.config, options.architecture, &mut notes);
    let config = image.config.config.unwrap_or_default();
    configured::working_dir(&mut tree, &config, &mut notes);
    configured::note(&config, &mut notes);
    let (architecture, clamp_mtime) = (options.architecture, options.clamp_mtime);
    Ok(Application { tree, config, notes, record, architecture, clamp_mtime })
}

fn find_image(input: &Input, options: &Options<'_>) -> Result<(Image, Option<String>), BuildError> {
    let architecture = options.architecture;
    let (path, image, repository) = match input {
        Input::Layout { path, select } => (path, oci::open_layout(path, select, architecture), None),
        Input::OciArchive { path, select } => {
            (path, oci::open_oci_archive(path, select, architecture, options.scratch, &options.limits), None)
        }
        Input::DockerArchive { path, select } => {
            let image =
                oci::open_docker_archive(path, select, architecture, options.scratch, &options.limits);
            (path, image, None)
        }
        Input::Fetched { blobs, digest, repository } => {
            let layout = oci::Layout::of_blobs(blobs);
            let image = oci::find(&layout, *digest, architecture).and_then(|chosen| chosen.open(&layout));
            (blobs, image, Some(repository.clone()))
        }
        Input::Directory { path } => (path, Err(OciError::NotALayout("oci-layout")), None),
    };
    let image = image.map_err(|error| BuildError::Input { path: path.clone(), error })?;
    Ok((image, repository))
}
