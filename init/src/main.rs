//! PID 1.
//!
//! Its law: the arguments and the environment, which an unmeasured command line can fill, are not read.

fn main() {
    if rustix::process::getpid().is_init() {
        cloister_init::run(&cloister_init::STAGES);
    }
}
