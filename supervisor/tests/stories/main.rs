//! The whole supervisor against an init of the tests' own: real processes, pipes and memfds; unix sockets for vsock.
//!
//! Its law: a story tells what people see (states, log records, processes) and waits for it; it never looks inside.

mod enclave;
mod host;
mod manifest;
mod stand_in;

mod control;
mod crash;
mod ends;
mod logs;
mod order;
mod restarts;
