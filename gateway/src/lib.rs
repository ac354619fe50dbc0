//! The gateway: the servant that carries every connection from outside.
//!
//! Its law: it parses what hosts and clients send, so it holds nothing worth having: two descriptors, an empty root, a user of its
//! own and no capability. It decides nothing. Which ports there are and whose they are is the [supervisor's
//! word](cloister_wire::gateway); while there is no supervisor the last word stands.
//!
//! | module | job |
//! |---|---|
//! | [`program`] | the process: its threads and what they share |
//! | [`ingress`] | connections of the host, from accept to the end |
//! | `connection` | one of them: its header, its service, its bytes |
//! | `shared` | what all threads and connections share |
//! | `table` | where the ports lead, and to whom |
//! | `channel` | the conversation with the supervisor |
//! | `loans` | sockets that the supervisor makes, where all ports are taken |
//! | `proxy` | the PROXY protocol's header, version 2 |
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
