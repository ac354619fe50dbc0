//! The maximum size of a ramdisk that QEMU's machines load.
//!
//! Invariant: the limit is one that was confirmed by loading such a ramdisk.

/// The memory below 4 GiB of a machine with 2.75 GiB or more, where QEMU loads a ramdisk (`hw/i386/pc_q35.c`, `pc_q35_init`;
/// `hw/i386/microvm.c`, `microvm_memory_init`). In machines with less memory this part is larger, but an image that fills it
/// would not have enough memory to boot. Seen with QEMU 7.2 and 8 GiB: the kernel reports a ramdisk that ends at 2 GiB, and a
/// machine with one of 2,047 MiB is reset before the kernel's first line.
const LOW_MEMORY: u64 = 2 << 30;

/// Where a bzImage unpacks itself (Documentation/arch/x86/boot.rst, `pref_address`). The ramdisk is at the other end.
const KERNEL_AT: u64 = 16 << 20;

/// QEMU reserves 160 KiB for tables above the ramdisk (`hw/i386/x86.c`, `acpi_data_size`); in whole MiB.
const TABLES: u64 = 1 << 20;

/// The maximum size of the ramdisks in bytes, for a kernel that unpacks to `kernel` bytes, for all of QEMU's machine types.
pub(super) const fn max_ramdisk(kernel: u64) -> u64 {
    LOW_MEMORY.saturating_sub(TABLES).saturating_sub(KERNEL_AT).saturating_sub(kernel)
}
