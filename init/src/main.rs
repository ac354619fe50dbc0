//! PID 1.
//!
//! Invariant: the arguments and the environment, which an unmeasured command line can set, are not read.

fn main() {
    if rustix::process::getpid().is_init() {
        cloister_init::run(&cloister_init::STAGES);
    }
}
