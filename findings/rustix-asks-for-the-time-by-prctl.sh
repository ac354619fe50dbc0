#!/usr/bin/env bash
# The first call of rustix::time::clock_gettime makes a prctl, and on a kernel without PR_GET_AUXV opens a file of /proc.
#
# expected: reading a clock is the vDSO's function or the system call clock_gettime, so that a seccomp filter which allows that call
#           allows reading a clock, as it does with the standard library's Instant and SystemTime
# seen:     rustix's own backend finds the vDSO through the auxiliary vector, for which it calls prctl(PR_GET_AUXV) once, and falls
#           back to /proc/self/auxv; a process whose filter allows neither is killed by its first reading, not by its start. With
#           Instant and SystemTime there is no prctl
# with:     rustix 1.1.6 with its default backend (linux_raw), x86-64; needs strace and a kernel from 6.4 on
#
# A confined program that only needs the time takes it from the standard library.
set -euo pipefail

command -v strace >/dev/null || { echo "needs strace"; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/src/bin"
cat >"$work/Cargo.toml" <<TOML
[package]
name = "reads"
version = "0.1.0"
edition = "2024"

[dependencies]
rustix = { version = "=1.1.6", features = ["time"] }
TOML
cat >"$work/src/bin/crate.rs" <<RUST
fn main() {
    println!("{}", rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec > 0);
}
RUST
cat >"$work/src/bin/library.rs" <<RUST
fn main() {
    let (instant, date) = (std::time::Instant::now(), std::time::SystemTime::now());
    println!("{}", instant.elapsed().as_secs() == 0 && date > std::time::UNIX_EPOCH);
}
RUST
cargo build --quiet --manifest-path "$work/Cargo.toml"

# calls PROGRAM: how many times it calls prctl for the auxiliary vector.
calls() {
  strace -e trace=prctl -o "$work/trace" "$work/target/debug/$1" >/dev/null
  grep -c -E 'PR_GET_AUXV|0x41555856' "$work/trace" || true
}

uname -r
by_crate=$(calls crate) by_library=$(calls library)
echo "prctl calls for the auxiliary vector: rustix $by_crate, standard library $by_library"
if ((by_crate == 0 || by_library != 0)); then
  echo "changed"
  exit 1
fi
echo "as described"
