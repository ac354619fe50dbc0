//! The formats of everything that crosses a boundary between Cloister's programs, defined once and used by both ends.
//!
//! Invariant: each format is defined only here, and all input is bounded before it is used. This crate opens no sockets
//! and never blocks: it converts between bytes and values.
//!
//! | boundary | module |
//! |---|---|
//! | host ⇄ enclave, port 17000 | [`control`] |
//! | host ⇄ enclave, port 17001 | [`logs`] |
//! | host → enclave, port 17003 | [`ingress`], [`chunks`] |
//! | enclave → host, port 17004 | [`module`] |
//! | init ⇄ supervisor, a socket pair | [`hold`] |
//! | supervisor ⇄ gateway, a socket pair | [`gateway`], [`packet`] |
//! | supervisor ⇄ attestor, a socket pair | [`attestor`], [`packet`] |
//! | terminator ⇄ supervisor, gateway and attestor, socket pairs | [`terminator`], [`packet`] |
//! | a service's first process → init, a socket pair | [`first`] |
//! | exit codes of `host-sleeve run` | [`exit`] |
//! | errors on a console, in a log and in replies | [`causes`] |

pub mod attestor;
pub mod causes;
pub mod chunks;
pub mod control;
pub mod event;
pub mod exit;
pub mod first;
pub mod frame;
pub mod gateway;
pub mod hello;
pub mod hold;
pub mod ingress;
pub mod logs;
pub mod module;
pub mod packet;
pub mod ports;
pub mod terminator;
