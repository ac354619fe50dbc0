#!/usr/bin/env bash
# The documentation of aes-siv says that a plaintext shorter than the tag is an error. It is none, down to no plaintext at all.
#
# expected: `Siv::encrypt` "Returns Error if plaintext.len() is less than M::OutputSize" (16 bytes), as its documentation states, so
#           that a request of Network Time Security (RFC 8915), which seals nothing, cannot be made with it
# seen:     plaintexts of 0, 1 and 15 bytes are sealed and opened again, as RFC 5297 defines it for every length
# with:     aes-siv 0.8.0, cargo and rustc of this machine (printed below)
#
# The sentence is still in the documentation of that version, which is checked below: a reader would look for another crate.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "sealing"
version = "0.1.0"
edition = "2024"

[dependencies]
aes-siv = { version = "=0.8.0", default-features = false, features = ["alloc"] }
TOML
cat >"$work/src/main.rs" <<'RUST'
use aes_siv::{KeyInit, siv::Aes128Siv};

fn main() {
    for length in [0, 1, 15, 16] {
        let plain = vec![7; length];
        let mut siv = Aes128Siv::new(&[1; 32].into());
        let sealed = siv.encrypt([b"associated"], &plain);
        let opened = sealed.as_ref().ok().and_then(|sealed| siv.decrypt([b"associated"], sealed).ok());
        println!("{length} bytes: sealed {}, opened {}", sealed.is_ok(), opened.as_ref() == Some(&plain));
    }
}
RUST

cargo --version
rustc --version
seen=$(cargo run --quiet --manifest-path "$work/Cargo.toml")
echo "$seen"
if grep -q false <<<"$seen"; then
  echo "changed: a short plaintext is an error"
  exit 1
fi
source=$(cargo metadata --format-version 1 --manifest-path "$work/Cargo.toml" |
  python3 -c 'import json, sys
print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "aes-siv").removesuffix("Cargo.toml"))')
if ! grep -n 'if `plaintext.len()` is less than `M::OutputSize`' "${source}src/siv.rs"; then
  echo "changed: the documentation no longer says so"
  exit 1
fi
echo "as described: the documentation states an error that is never returned"
