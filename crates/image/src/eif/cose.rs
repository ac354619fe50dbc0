//! The signature section: one `COSE_Sign1` (RFC 9052) over register 0, and the certificate, in CBOR.
//!
//! Its law: what is accepted is exactly what is written. The vendor's encoding is kept where it is odd: byte strings inside
//! its structures are arrays of numbers.

use ciborium::Value;
use p384::ecdsa::signature::Verifier;
use p384::ecdsa::{Signature, VerifyingKey};

use crate::measure::Pcr;

/// The protected header: the algorithm (1) is ES384 (-35).
const PROTECTED: [u8; 4] = [0xa1, 0x01, 0x38, 0x22];

/// How deep the vendor's structures nest, with room to spare: hostile nesting ends here.
const DEPTH: usize = 8;

/// The payload that is signed: a register's number and value.
pub(crate) fn payload(pcr0: &Pcr) -> Vec<u8> {
    encode(&map([("register_index", Value::from(0)), ("register_value", numbers(pcr0.bytes()))]))
}

/// The bytes that are really signed (`Sig_structure`).
pub(crate) fn to_be_signed(payload: &[u8]) -> Vec<u8> {
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    encode(&Value::Array(vec![Value::from("Signature1"), bytes(&PROTECTED), bytes(&[]), bytes(payload)]))
}

/// The section's bytes.
pub(crate) fn section(payload: &[u8], signature: &[u8], certificate: &str) -> Vec<u8> {
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    let sign1 = [bytes(&PROTECTED), Value::Map(Vec::new()), bytes(payload), bytes(signature)];
    let sign1 = encode(&Value::Array(sign1.to_vec()));
    let entry =
        map([("signing_certificate", numbers(certificate.as_bytes())), ("signature", numbers(&sign1))]);
    encode(&Value::Array(vec![entry]))
}

/// What a signature section holds.
#[derive(Debug)]
pub(crate) struct Signed {
    /// The certificate's PEM text.
    pub(crate) certificate: String,
    sign1: Sign1,
}

#[derive(Debug)]
struct Sign1 {
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl Signed {
    /// Takes a section apart.
    pub(crate) fn decode(section: &[u8]) -> Result<Self, &'static str> {
        let Value::Array(entries) = decode(section)? else { return Err("it is no list") };
        let [entry] = <[Value; 1]>::try_from(entries).map_err(|_| "it does not hold one signature")?;
        let [certificate, sign1] = fields(entry, ["signing_certificate", "signature"])?;
        let certificate =
            String::from_utf8(octets(certificate)?).map_err(|_| "its certificate is no text")?;
        Ok(Self { certificate, sign1: Sign1::decode(&octets(sign1)?)? })
    }

    /// Whether it signs this value of register 0 with this key.
    pub(crate) fn verify(&self, pcr0: &Pcr, key: &VerifyingKey) -> Result<(), &'static str> {
        if self.sign1.payload != payload(pcr0) {
            return Err("what is signed is not register 0 of this file");
        }
        let signature = Signature::from_slice(&self.sign1.signature);
        let signature = signature.map_err(|_| "the signature is not one on the curve P-384")?;
        let signed = to_be_signed(&self.sign1.payload);
        key.verify(&signed, &signature).map_err(|_| "the signature is not by the certificate's key")
    }
}

impl Sign1 {
    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let value = match decode(bytes)? {
            // The tag of COSE_Sign1 may be there.
            Value::Tag(18, inner) => *inner,
            other => other,
        };
        let Value::Array(parts) = value else { return Err("its signature is no COSE_Sign1") };
        let parts = <[Value; 4]>::try_from(parts).map_err(|_| "its signature is no COSE_Sign1")?;
        match parts {
            [
                Value::Bytes(protected),
                Value::Map(unprotected),
                Value::Bytes(payload),
                Value::Bytes(signature),
            ] if protected == PROTECTED && unprotected.is_empty() => Ok(Self { payload, signature }),
            _ => Err("its signature has other headers than the algorithm ES384"),
        }
    }
}

fn decode(mut bytes: &[u8]) -> Result<Value, &'static str> {
    let value = ciborium::de::from_reader_with_recursion_limit(&mut bytes, DEPTH);
    let value = value.map_err(|_| "it is no CBOR")?;
    if bytes.is_empty() { Ok(value) } else { Err("bytes follow its CBOR") }
}

fn encode(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to memory does not fail, and a `Value` always has a form in CBOR.
    match ciborium::into_writer(value, &mut bytes) {
        Ok(()) => bytes,
        Err(_) => Vec::new(),
    }
}

/// A map with text keys, in the order given.
fn map<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Map(fields.into_iter().map(|(name, value)| (Value::from(name), value)).collect())
}

/// The values of a map that has exactly these keys, in any order.
fn fields<const N: usize>(value: Value, names: [&str; N]) -> Result<[Value; N], &'static str> {
    let Value::Map(mut entries) = value else { return Err("an entry is no map") };
    if entries.len() != N {
        return Err("an entry has other fields than it should");
    }
    let found: Option<Vec<Value>> = names
        .iter()
        .map(|name| {
            let place = entries.iter().position(|(key, _)| key.as_text() == Some(name))?;
            Some(entries.swap_remove(place).1)
        })
        .collect();
    let found = found.and_then(|found| <[Value; N]>::try_from(found).ok());
    found.ok_or("an entry has other fields than it should")
}

fn numbers(bytes: &[u8]) -> Value {
    Value::Array(bytes.iter().map(|byte| Value::from(*byte)).collect())
}

fn octets(value: Value) -> Result<Vec<u8>, &'static str> {
    let Value::Array(numbers) = value else { return Err("bytes are not written as a list of numbers") };
    let octet = |number: Value| number.as_integer().and_then(|number| u8::try_from(number).ok());
    numbers.into_iter().map(octet).collect::<Option<_>>().ok_or("a list of bytes holds something else")
}
