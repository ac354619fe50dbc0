//! Every byte that crosses a boundary of ours, described once and used by both ends.
//!
//! Its law: a format is written here and nowhere else, and everything read through it is bounded before it is
//! believed. It holds no sockets and waits for nothing: bytes come in, values go out.
//!
//! | boundary | module |
//! |---|---|
//! | host ⇄ enclave, port 17000 | [`control`] |
//! | host ⇄ enclave, port 17001 | [`logs`] |
//! | host → enclave, port 17003 | [`ingress`], [`chunks`] |
//! | init ⇄ supervisor, a socket pair | [`hold`] |
//! | supervisor ⇄ gateway, a socket pair | [`gateway`] |
//! | a service's first process → init, a socket pair | [`first`] |
//! | the end of `host-sleeve run` | [`exit`] |
//! | errors on a console, in a log and in answers | [`causes`] |

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
pub mod ports;
