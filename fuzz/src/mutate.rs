//! Derives inputs from others without measuring coverage, for `brief`, which replaces libFuzzer where that cannot run.
//!
//! Invariant: the same seed gives the same inputs, so that a finding can be reproduced.

/// The maximum size of an input in bytes: small inputs are parsed quickly, and time is limited.
const MAX_INPUT: usize = 16 * 1024;

/// Bytes at the boundaries of ranges.
const EDGES: [u8; 10] = [0, 1, 0x7f, 0x80, 0xff, b'0', b'9', b'/', b'\n', b'"'];

/// Tokens that parsers of text look for.
const TOKENS: [&str; 22] = [
    "version: 1",
    "services",
    "null",
    "~",
    "true",
    "-1",
    "0",
    "4294967296",
    "18446744073709551615",
    "1e999",
    "\u{202e}",
    "../",
    "/",
    "{}",
    "[]",
    "\"\"",
    "&a ",
    "*a",
    "!!",
    "sha256:",
    "\0",
    "\r\n",
];

/// A small generator (xorshift64*, Vigna 2016): good enough to choose positions, and the same on every platform.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Starts at a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

/// One input of the corpus, or two joined, with a few changes.
#[must_use]
pub fn input(corpus: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = chance.pick(corpus).cloned().unwrap_or_default();
    if chance.below(8) == 0 {
        let other = chance.pick(corpus).cloned().unwrap_or_default();
        bytes.truncate(chance.below(bytes.len() + 1));
        bytes.extend(other.iter().skip(chance.below(other.len() + 1)));
    }
    for _ in 0..=chance.below(4) {
        change(&mut bytes, chance);
    }
    bytes.truncate(MAX_INPUT);
    bytes
}

fn change(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let at = chance.below(bytes.len() + 1);
    match chance.below(8) {
        0 => flip(bytes, at, chance),
        1 => set(bytes, at, chance.pick(&EDGES).copied().unwrap_or(0)),
        2 => {
            let random = u8::try_from(chance.below(256)).unwrap_or(0);
            set(bytes, at, random);
        }
        3 => {
            let end = at + chance.below((bytes.len() - at).min(32) + 1);
            bytes.drain(at..end);
        }
        4 => {
            let end = at + chance.below((bytes.len() - at).min(64) + 1);
            let piece = bytes.get(at..end).unwrap_or_default().to_vec();
            insert(bytes, chance.below(bytes.len() + 1), &piece);
        }
        5 => insert(bytes, at, chance.pick(&TOKENS).unwrap_or(&"").as_bytes()),
        6 => bytes.truncate(at),
        _ => number(bytes, at, chance),
    }
}

fn flip(bytes: &mut [u8], at: usize, chance: &mut Chance) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << chance.below(8);
    }
}

fn set(bytes: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = value;
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let tail = bytes.split_off(at.min(bytes.len()));
    bytes.extend_from_slice(piece);
    bytes.extend(tail);
}

/// Writes a number's bytes, large or small, in either byte order: for lengths and sizes.
fn number(bytes: &mut [u8], at: usize, chance: &mut Chance) {
    let value = u64::MAX >> chance.below(64);
    let width = 1 << chance.below(4);
    let encoded = if chance.below(2) == 0 { value.to_be_bytes() } else { value.to_le_bytes() };
    for (place, byte) in bytes.iter_mut().skip(at).zip(encoded.into_iter().take(width)) {
        *place = byte;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let corpus = vec![b"version: 1\n".to_vec(), vec![0; 100], Vec::new()];
        let some = |seed| {
            let mut chance = Chance::new(seed);
            (0..1000).map(|_| input(&corpus, &mut chance)).collect::<Vec<_>>()
        };
        assert_eq!(some(7), some(7));
        assert_ne!(some(7), some(9));
        assert!(some(7).iter().all(|input| input.len() <= MAX_INPUT));
    }
}
