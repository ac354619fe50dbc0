//! The whole path from text to manifest: golden reports, and properties.

mod build;
mod golden;
mod properties;
mod schema;
mod view;
