#!/usr/bin/env bash
# A no_std library that depends on dcap-qvl without its `std` feature builds only together with something that uses std.
#
# expected: the crate is meant for use without std (its feature `std` is optional, and it is `no_std` without it), so that a library
#           with it as the only dependency builds, as with any other crate
# seen:     the build stops in dcap-qvl itself: it also declares the crate types `cdylib` and `staticlib`, which cargo builds for
#           dependents as well, and such a library needs a global allocator and a panic handler, which only std brings; with the
#           feature `std` the same library builds
# with:     dcap-qvl 0.7.1, cargo and rustc of this machine (printed below)
#
# A pure verifier of TDX quotes has to build it in a workspace with std, or to enable the feature.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
printf '#![no_std]\npub use dcap_qvl as verifier;\n' >"$work/src/lib.rs"

# build FEATURES: builds the library with these features of dcap-qvl.
build() {
  cat >"$work/Cargo.toml" <<TOML
[package]
name = "verifier"
version = "0.1.0"
edition = "2024"

[dependencies]
dcap-qvl = { version = "=0.7.1", default-features = false, features = [$1] }
TOML
  cargo build --quiet --manifest-path "$work/Cargo.toml" 2>"$work/log"
}

cargo --version
rustc --version
if build '"rustcrypto", "default-x509"'; then
  echo "changed: it builds without std"
  exit 1
fi
grep -E '^error' "$work/log" | sort -u
grep -q 'no global memory allocator found' "$work/log" || { echo "changed: another error"; cat "$work/log"; exit 1; }
build '"std", "rustcrypto", "default-x509"' || { echo "changed: it does not build with std either"; cat "$work/log"; exit 1; }
echo "as described: without std it needs a global allocator, with std it builds"
