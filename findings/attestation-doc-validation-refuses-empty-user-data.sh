#!/usr/bin/env bash
# attestation-doc-validation refuses documents of AWS Nitro whose user data or nonce is empty, which modules write and AWS allows.
#
# expected: a field `user_data` or `nonce` of 0 to 512 bytes is valid (aws-nitro-enclaves-nsm-api, docs/attestation_process.md,
#           section 3.2.2.2). A module writes an empty one if the enclave passes an empty buffer
# seen:     a document with an empty one is refused with `InvalidUserData` or `InvalidNonce`, before its signature is looked at; with a
#           missing one, or one of a byte, it is decoded
# with:     attestation-doc-validation 0.10.1
#
# An enclave whose documents are verified by this crate leaves an unused field out, and does not pass an empty one. Only the structure
# is checked here, so that the document need not be signed.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
cat >"$work/Cargo.toml" <<TOML
[package]
name = "reads"
version = "0.1.0"
edition = "2024"

[dependencies]
attestation-doc-validation = "=0.10.1"
serde_cbor = "0.11"
TOML
cat >"$work/src/main.rs" <<RUST
use attestation_doc_validation::attestation_doc::decode_attestation_document;
use serde_cbor::{Value, to_vec};

/// A document with these two fields, unsigned. A missing one is null, as modules write it.
fn document(user_data: Option<Vec<u8>>, nonce: Option<Vec<u8>>) -> Vec<u8> {
    let field = |bytes: Option<Vec<u8>>| bytes.map_or(Value::Null, Value::Bytes);
    let pcrs = [(Value::Integer(0), Value::Bytes(vec![1; 48]))];
    let fields = [
        ("module_id", Value::Text("i-0-enc0".into())),
        ("digest", Value::Text("SHA384".into())),
        ("timestamp", Value::Integer(1_700_000_000_000)),
        ("pcrs", Value::Map(pcrs.into_iter().collect())),
        ("certificate", Value::Bytes(vec![0x30])),
        ("cabundle", Value::Array(vec![Value::Bytes(vec![0x30])])),
        ("public_key", Value::Null),
        ("user_data", field(user_data)),
        ("nonce", field(nonce)),
    ];
    let payload = fields.into_iter().map(|(name, value)| (Value::Text(name.into()), value)).collect();
    // The protected header is {1: -35}, ES384.
    let parts = [vec![0xa1, 0x01, 0x38, 0x22], to_vec(&Value::Map(payload)).unwrap(), vec![0; 96]];
    let [protected, payload, signature] = parts.map(Value::Bytes);
    to_vec(&Value::Array(vec![protected, Value::Map(Default::default()), payload, signature])).unwrap()
}

fn main() {
    let (none, empty, byte) = (|| None, || Some(vec![]), || Some(vec![7]));
    for (name, document) in [
        ("both missing", document(none(), none())),
        ("both of a byte", document(byte(), byte())),
        ("empty user data", document(empty(), none())),
        ("empty nonce", document(none(), empty())),
    ] {
        match decode_attestation_document(&document) {
            Ok(_) => println!("{name}: decoded"),
            Err(error) => println!("{name}: {error:?}"),
        }
    }
}
RUST

cargo --version
seen=$(cargo run --quiet --manifest-path "$work/Cargo.toml")
echo "$seen"
expected="both missing: decoded
both of a byte: decoded
empty user data: InvalidUserData
empty nonce: InvalidNonce"
[[ $seen == "$expected" ]] || { echo "changed"; exit 1; }
echo "as described"
