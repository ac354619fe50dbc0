//! The gateway: the servant that forwards every connection from outside.
//!
//! Invariant: it parses untrusted input from hosts and clients, so it has access to nothing of value: two descriptors,
//! an empty root, a user of its own and no capabilities. It makes no decisions. The
//! [supervisor](cloister_wire::gateway) sends the ports and their owners; while no supervisor runs, the last table
//! applies.
//!
//! | module | job |
//! |---|---|
//! | [`program`] | the process and its threads |
//! | [`ingress`] | accepts the host's connections |
//! | `connection` | one connection: its header, its service, its data |
//! | `shared` | state shared by all threads and connections |
//! | `table` | the targets of the ports, and their owners |
//! | `channel` | the channel to the supervisor |
//! | `loans` | sockets that the supervisor creates if all ports are in use |
//! | `proxy` | the header of the PROXY protocol, version 2 |
//! | `refusal` | why a connection is refused, and how often that is reported |

mod channel;
mod connection;
pub mod ingress;
mod loans;
pub mod program;
mod proxy;
mod refusal;
mod shared;
mod table;
