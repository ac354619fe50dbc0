//! The whole supervisor against an init of the tests' own: real processes, pipes and memfds; unix sockets for vsock.
//!
//! Its law: a story tells what people see (states, log records, processes) and waits for it; it never looks inside.

#[cfg(test)]
mod control;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod enclave;
#[cfg(test)]
mod ends;
#[cfg(test)]
mod gateway;
#[cfg(test)]
mod host;
#[cfg(test)]
mod ingress;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod manifest;
#[cfg(test)]
mod order;
#[cfg(test)]
mod restarts;
#[cfg(test)]
mod stand_in;
