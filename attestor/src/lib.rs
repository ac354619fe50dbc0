//! The attestor: the servant that has what provides evidence.
//!
//! Invariant: it parses requests of programs inside and of clients outside, so it has access to nothing but the provider of evidence, the memory of the
//! event log and of the TLS key, and its ends of socket pairs: an empty root, a user of its own and no capabilities. The supervisor decides
//! which program may request what, and passes its connection on together with that decision; clients outside come from the terminator
//! and may request what is public.
//!
//! | module | job |
//! |---|---|
//! | [`program`] | the process |
//! | `channel` | the channel to the supervisor |
//! | `client` | one connection of a program inside |
//! | `resource` | the resources: what each needs, and its response |
//! | `request` | the bodies of requests |
//! | `exchange` | a request to what provides evidence, and what comes of it |
//! | `module` | what provides evidence, one request at a time |
//! | `turns` | whose request is next |
//! | `provider` | its kinds: a security module, or reports |
//! | `keeper` | a security module together with the event log |
//! | `reports` | reports of TDX and SEV-SNP together with the event log |
//! | `events` | the event log, which outlives this process |
//! | `key` | the key of the TLS certificate |
//! | `certificate` | the certificate, with evidence in it |
//! | `tls` | the certificate that is presented, and signatures of handshakes |
//! | `terminator` | the pairs to the terminator |
//! | `remote` | the attestation server |
//! | `openapi` | the description of both interfaces, for the tests |
//! | `registers` | the module's registers, compared with the log |

mod certificate;
mod channel;
mod client;
mod events;
mod exchange;
mod keeper;
mod key;
mod module;
#[cfg(test)]
mod openapi;
pub mod program;
mod provider;
mod registers;
mod remote;
mod reports;
mod request;
mod resource;
mod terminator;
mod tls;
mod turns;
