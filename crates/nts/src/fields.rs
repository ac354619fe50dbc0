//! Extension fields: a type, a length that includes both, and a body (RFC 7822).
//!
//! Invariant: a field is inside the bytes that it is read from, and its length is a multiple of four.

/// The types that NTS uses (RFC 8915, section 7.5).
pub(crate) const UNIQUE_IDENTIFIER: u16 = 0x0104;
pub(crate) const COOKIE: u16 = 0x0204;
pub(crate) const PLACEHOLDER: u16 = 0x0304;
pub(crate) const AUTHENTICATOR: u16 = 0x0404;

/// The shortest field in a packet, with its header (RFC 7822, section 3).
pub(crate) const OUTER_MIN: usize = 16;

/// The shortest field that is encrypted: RFC 8915 lifts the minimum for these.
pub(crate) const INNER_MIN: usize = HEADER;

/// Bytes of type and length.
pub(crate) const HEADER: usize = 4;

/// A field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub(crate) kind: u16,
    pub(crate) body: &'a [u8],
    /// What follows it.
    pub(crate) rest: &'a [u8],
}

/// Splits the first field off; `None` if there is no well-formed one of `min` bytes at least.
pub(crate) fn first(bytes: &[u8], min: usize) -> Option<Field<'_>> {
    let (kind, after) = bytes.split_first_chunk()?;
    let (length, _) = after.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes(*length));
    if length < min || !length.is_multiple_of(4) {
        return None;
    }
    let (field, rest) = bytes.split_at_checked(length)?;
    Some(Field { kind: u16::from_be_bytes(*kind), body: field.get(HEADER..)?, rest })
}

/// Appends a field, whose body is padded with zeros to a multiple of four; `None` if it is too long for one.
pub(crate) fn append(packet: &mut Vec<u8>, kind: u16, body: &[u8]) -> Option<()> {
    let length = HEADER.checked_add(body.len())?.checked_next_multiple_of(4)?;
    let end = packet.len().checked_add(length)?;
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
    packet.extend_from_slice(body);
    packet.resize(end, 0);
    Some(())
}

/// The body of an authenticator: the lengths of nonce and sealed bytes, and both, each padded (RFC 8915, section 5.6).
pub(crate) fn authenticator(nonce: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    for part in [nonce, sealed] {
        body.extend_from_slice(&u16::try_from(part.len()).ok()?.to_be_bytes());
    }
    for part in [nonce, sealed] {
        body.extend_from_slice(part);
        body.resize(body.len().checked_next_multiple_of(4)?, 0);
    }
    Some(body)
}

/// The nonce and the sealed bytes of an authenticator's body. Padding, which is not authenticated, must be zeros. There may be
/// more of it, which makes an answer as long as the request.
pub(crate) fn sealed(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (nonce, rest) = body.split_first_chunk()?;
    let (sealed, rest) = rest.split_first_chunk()?;
    let (nonce, rest) = padded(rest, usize::from(u16::from_be_bytes(*nonce)))?;
    let (sealed, rest) = padded(rest, usize::from(u16::from_be_bytes(*sealed)))?;
    // RFC 5297, section 6.1: a nonce has one byte at least.
    (!nonce.is_empty() && rest.iter().all(|byte| *byte == 0)).then_some((nonce, sealed))
}

/// The first `length` bytes, and what follows their padding.
fn padded(bytes: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    let (part, rest) = bytes.split_at_checked(length)?;
    let (padding, rest) = rest.split_at_checked(length.checked_next_multiple_of(4)?.checked_sub(length)?)?;
    padding.iter().all(|byte| *byte == 0).then_some((part, rest))
}
