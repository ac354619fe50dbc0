//! The registers of one enclave.
//!
//! Invariant: they behave as on AWS Nitro: 32 of SHA-384, of which the lower half is locked from the start, and a locked one never
//! changes again.

use cloister_image::measure::{NitroPcrs, Pcr};
use cloister_nsm::server::Refusal;

/// The number of registers of AWS Nitro.
pub(super) const COUNT: u16 = 32;

/// The number of registers, from 0, that AWS Nitro reserves for itself and locks before the enclave runs.
pub(super) const RESERVED: u16 = 16;

/// The name of their hash.
pub(super) const DIGEST: &str = "SHA384";

/// All registers.
#[derive(Debug)]
pub(super) struct Registers(Vec<Register>);

/// One register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Register {
    /// Its value.
    pub(super) value: Pcr,
    /// Whether it can no longer be extended.
    pub(super) locked: bool,
}

impl Registers {
    /// The registers of an enclave that was launched from this image. The others are zeros, as are those of AWS's instance
    /// and its role (PCR3, PCR4).
    pub(super) fn new(image: &NitroPcrs) -> Self {
        let register =
            |index| Register { value: image.get(index).unwrap_or(Pcr::ZERO), locked: index < RESERVED };
        Self((0..COUNT).map(register).collect())
    }

    /// A register.
    pub(super) fn get(&self, index: u16) -> Result<Register, Refusal> {
        self.0.get(usize::from(index)).copied().ok_or(Refusal::InvalidIndex)
    }

    /// Extends a register and returns its new value.
    pub(super) fn extend(&mut self, index: u16, data: &[u8]) -> Result<Pcr, Refusal> {
        let register = self.unlocked(index)?;
        register.value = register.value.extend(data);
        Ok(register.value)
    }

    /// Locks a register.
    pub(super) fn lock(&mut self, index: u16) -> Result<(), Refusal> {
        self.unlocked(index)?.locked = true;
        Ok(())
    }

    /// Locks all registers below `range`; those that are locked already stay so.
    pub(super) fn lock_below(&mut self, range: u16) -> Result<(), Refusal> {
        let below = self.0.get_mut(..usize::from(range)).ok_or(Refusal::InvalidIndex)?;
        for register in below {
            register.locked = true;
        }
        Ok(())
    }

    /// The locked registers, ascending.
    pub(super) fn locked(&self) -> impl Iterator<Item = (u16, &Pcr)> {
        let numbered = (0..COUNT).zip(&self.0);
        numbered.filter(|(_, register)| register.locked).map(|(index, register)| (index, &register.value))
    }

    fn unlocked(&mut self, index: u16) -> Result<&mut Register, Refusal> {
        match self.0.get_mut(usize::from(index)) {
            None => Err(Refusal::InvalidIndex),
            Some(register) if register.locked => Err(Refusal::ReadOnlyIndex),
            Some(register) => Ok(register),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> NitroPcrs {
        NitroPcrs { pcr0: Pcr::of(b"0"), pcr1: Pcr::of(b"1"), pcr2: Pcr::of(b"2"), pcr8: None }
    }

    /// A request, and what it must result in.
    #[derive(Debug)]
    enum Step {
        Extend(u16, Result<(), Refusal>),
        Lock(u16, Result<(), Refusal>),
        LockBelow(u16, Result<(), Refusal>),
    }

    #[test]
    fn registers_are_extended_and_locked_as_on_nitro() {
        use Refusal::{InvalidIndex, ReadOnlyIndex};
        use Step::{Extend, Lock, LockBelow};
        let mut registers = Registers::new(&image());
        for step in [
            Extend(0, Err(ReadOnlyIndex)),
            Extend(15, Err(ReadOnlyIndex)),
            Extend(16, Ok(())),
            Extend(31, Ok(())),
            Extend(32, Err(InvalidIndex)),
            Extend(u16::MAX, Err(InvalidIndex)),
            Lock(0, Err(ReadOnlyIndex)),
            Lock(16, Ok(())),
            Lock(16, Err(ReadOnlyIndex)),
            Extend(16, Err(ReadOnlyIndex)),
            Lock(32, Err(InvalidIndex)),
            LockBelow(0, Ok(())),
            LockBelow(18, Ok(())),
            Extend(17, Err(ReadOnlyIndex)),
            Extend(18, Ok(())),
            LockBelow(33, Err(InvalidIndex)),
            Extend(18, Ok(())),
            LockBelow(32, Ok(())),
            Extend(31, Err(ReadOnlyIndex)),
        ] {
            match &step {
                Extend(index, expected) => {
                    let before = registers.get(*index);
                    let extended = registers.extend(*index, b"data");
                    assert_eq!(extended.map(drop), *expected, "{step:?}");
                    let after = before.map(|before| match expected {
                        Ok(()) => before.value.extend(b"data"),
                        Err(_) => before.value,
                    });
                    assert_eq!(registers.get(*index).map(|register| register.value), after, "{step:?}");
                }
                Lock(index, expected) => assert_eq!(registers.lock(*index), *expected, "{step:?}"),
                LockBelow(range, expected) => assert_eq!(registers.lock_below(*range), *expected, "{step:?}"),
            }
        }
    }

    #[test]
    fn at_the_start_only_the_reserved_registers_are_locked_and_only_those_of_the_image_have_a_value() {
        let registers = Registers::new(&image());
        let locked: Vec<u16> = registers.locked().map(|(index, _)| index).collect();
        assert_eq!(locked, (0..16).collect::<Vec<_>>());
        for index in 0..COUNT {
            let expected = image().get(index).unwrap_or(Pcr::ZERO);
            assert_eq!(registers.get(index), Ok(Register { value: expected, locked: index < 16 }), "{index}");
        }
        assert_eq!(registers.get(3).unwrap().value, Pcr::ZERO);
    }

    /// The value that docs/measurements.md gives for the end of the boot.
    #[test]
    fn the_event_of_a_complete_boot_gives_the_documented_value() {
        let mut registers = Registers::new(&image());
        let event = cloister_wire::event::encode(cloister_wire::event::BOOT, &[]);
        let value = registers.extend(cloister_wire::event::BOOT_REGISTER, &event).unwrap();
        assert_eq!(
            value.to_string(),
            "926da6fdb43e503e03e620270893edc4f3e860722b580a5ed8af5dea3fd216b504322752210a7854de36c43072999853"
        );
    }
}
