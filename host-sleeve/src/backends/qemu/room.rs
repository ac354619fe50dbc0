//! How large a ramdisk QEMU's machines load.
//!
//! Its law: what it says loads is what was seen to load.

/// The memory below 4 GiB of a machine with 2.75 GiB or more, where QEMU loads a ramdisk (`hw/i386/pc_q35.c`, `pc_q35_init`;
/// `hw/i386/microvm.c`, `microvm_memory_init`). With less memory it is larger, but an image that fills it would not boot in so
/// little. Seen with QEMU 7.2 and 8 GiB: the kernel reports a ramdisk that ends at 2 GiB, and one of 2,047 MiB is reset before
/// the kernel's first line.
const LOW_MEMORY: u64 = 2 << 30;

/// Where a bzImage unpacks itself (Documentation/arch/x86/boot.rst, `pref_address`). The ramdisk lies at the other end.
const KERNEL_AT: u64 = 16 << 20;

/// What QEMU keeps for tables above the ramdisk is 160 KiB (`hw/i386/x86.c`, `acpi_data_size`); in whole MiB.
const TABLES: u64 = 1 << 20;

/// The most bytes of ramdisk beside a kernel that takes `kernel` bytes, for every machine that QEMU makes.
pub(super) const fn room(kernel: u64) -> u64 {
    LOW_MEMORY.saturating_sub(TABLES).saturating_sub(KERNEL_AT).saturating_sub(kernel)
}
