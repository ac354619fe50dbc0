//! The processor lines that AMD certifies keys for, and the layout of their TCB versions.
//!
//! Invariant: the components of a TCB version are compared one by one, in the layout of the product that the certificates are of.
//!
//! Source: AMD 56860, section 2.2 (`TCB_VERSION`, with the layout from family 1Ah on); AMD 57230 (VCEK certificates), section 3.1.

use core::fmt;

/// A processor line with a root key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004, 8004 (Siena) and 97x4 (Bergamo).
    Genoa,
    /// EPYC 9005.
    Turin,
}

/// The length in bytes of a chip's identifier in certificates of products before Turin.
const LONG_CHIP_ID: usize = 64;
/// The same since Turin. The rest of the field in the report is zero.
const SHORT_CHIP_ID: usize = 8;

impl Product {
    /// Every product that this release knows.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// The name in certificates and in the paths of AMD's key distribution service.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// The product of a processor, by its family and model as in a report: each with its extended part.
    #[must_use]
    pub const fn of_processor(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x1f) => Some(Self::Turin),
            _ => None,
        }
    }

    /// Whether a certificate's product name, such as `Milan-B0`, is one of this product.
    #[must_use]
    pub fn has_name(self, name: &str) -> bool {
        let line = name.split_once('-').map_or(name, |(line, _)| line);
        match self {
            Self::Genoa => ["Genoa", "Bergamo", "Siena"].contains(&line),
            Self::Milan | Self::Turin => line == self.name(),
        }
    }

    /// The number of bytes that identify a chip of this product.
    #[must_use]
    pub const fn chip_id_len(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => LONG_CHIP_ID,
            Self::Turin => SHORT_CHIP_ID,
        }
    }

    /// Whether TCB versions of this product have the version of the first mutable code (FMC).
    #[must_use]
    pub const fn has_fmc(self) -> bool {
        match self {
            Self::Milan | Self::Genoa => false,
            Self::Turin => true,
        }
    }

    /// The components of a TCB version in the order of its bytes.
    pub(crate) const fn layout(self) -> [Component; 8] {
        use Component::{BootLoader, Fmc, Microcode, Snp, Spl4, Spl5, Spl6, Spl7, Tee};
        match self {
            Self::Milan | Self::Genoa => [BootLoader, Tee, Spl4, Spl5, Spl6, Spl7, Snp, Microcode],
            Self::Turin => [Fmc, BootLoader, Tee, Snp, Spl5, Spl6, Spl7, Microcode],
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A component of a TCB version. Its number is the last arc of the extension in certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Component {
    BootLoader,
    Tee,
    Snp,
    Spl4,
    Spl5,
    Spl6,
    Spl7,
    Microcode,
    Fmc,
}

impl Component {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::BootLoader => "boot loader",
            Self::Tee => "TEE",
            Self::Snp => "SNP",
            Self::Spl4 => "SPL4",
            Self::Spl5 => "SPL5",
            Self::Spl6 => "SPL6",
            Self::Spl7 => "SPL7",
            Self::Microcode => "microcode",
            Self::Fmc => "FMC",
        }
    }

    /// The last arc of `1.3.6.1.4.1.3704.1.3.x`.
    pub(crate) const fn arc(self) -> u32 {
        match self {
            Self::BootLoader => 1,
            Self::Tee => 2,
            Self::Snp => 3,
            Self::Spl4 => 4,
            Self::Spl5 => 5,
            Self::Spl6 => 6,
            Self::Spl7 => 7,
            Self::Microcode => 8,
            Self::Fmc => 9,
        }
    }
}

/// A TCB version as in a report: eight bytes, whose layout depends on the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawTcb(pub [u8; 8]);

impl RawTcb {
    /// The named components.
    #[must_use]
    pub const fn read(self, product: Product) -> Tcb {
        let bytes = self.0;
        match product {
            Product::Milan | Product::Genoa => {
                let [boot_loader, tee, _, _, _, _, snp, microcode] = bytes;
                Tcb { fmc: 0, boot_loader, tee, snp, microcode }
            }
            Product::Turin => {
                let [fmc, boot_loader, tee, snp, _, _, _, microcode] = bytes;
                Tcb { fmc, boot_loader, tee, snp, microcode }
            }
        }
    }

    /// The first component that is lower than in `minimum`: its name, its value, the lowest accepted one.
    pub(crate) fn below(self, minimum: Self, product: Product) -> Option<(&'static str, u8, u8)> {
        let found = self.0.into_iter().zip(minimum.0).zip(product.layout());
        found
            .filter(|((value, least), _)| value < least)
            .map(|((value, least), component)| (component.name(), value, least))
            .next()
    }
}

/// The security versions of the firmware that a guest depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcb {
    /// The first mutable code; zero before Turin.
    pub fmc: u8,
    /// The security processor's boot loader.
    pub boot_loader: u8,
    /// The security processor's operating system.
    pub tee: u8,
    /// The SNP firmware.
    pub snp: u8,
    /// The lowest microcode patch level of all cores.
    pub microcode: u8,
}

impl Tcb {
    /// The bytes as in a report of `product`. Components without a name are zero.
    #[must_use]
    pub const fn write(self, product: Product) -> RawTcb {
        let Self { fmc, boot_loader, tee, snp, microcode } = self;
        RawTcb(match product {
            Product::Milan | Product::Genoa => [boot_loader, tee, 0, 0, 0, 0, snp, microcode],
            Product::Turin => [fmc, boot_loader, tee, snp, 0, 0, 0, microcode],
        })
    }
}

impl fmt::Display for Tcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fmc, boot_loader, tee, snp, microcode } = self;
        write!(f, "boot loader {boot_loader}, TEE {tee}, SNP {snp}, microcode {microcode}")?;
        if *fmc != 0 {
            write!(f, ", FMC {fmc}")?;
        }
        Ok(())
    }
}
