//! The attestor: the servant that has the security module.
//!
//! Invariant: it parses the requests of programs inside, so it has access to nothing but the module and its end of a
//! socket pair: an empty root, a user of its own and no capabilities. The supervisor decides who may request what, and
//! passes each client's connection together with that decision.
//!
//! | module | job |
//! |---|---|
//! | [`program`] | the process |
//! | `channel` | the channel to the supervisor |
//! | `client` | one connection of a program inside |
//! | `resource` | the resources: what each needs, and its response |
//! | `request` | the bodies of requests |
//! | `exchange` | a request to a module, and what comes of it |
//! | `module` | the security module, one request at a time |
//! | `sleeve` | the development security module of the platform `virtual` |

mod channel;
mod client;
mod exchange;
mod module;
pub mod program;
mod request;
mod resource;
mod sleeve;
