//! The whole supervisor with an init of the tests' own: real processes, pipes and memfds; unix sockets instead of vsock.
//!
//! Invariant: a test checks what is visible from outside (states, log records, processes) and waits for it; it never inspects
//! the supervisor's internals.

#[cfg(test)]
mod attestor;
#[cfg(test)]
mod control;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod enclave;
#[cfg(test)]
mod exits;
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
