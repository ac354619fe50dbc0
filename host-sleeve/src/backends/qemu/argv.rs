//! QEMU's command line.
//!
//! Invariant: one pure function, with golden tests. Socket paths have no directory: QEMU is started in the enclave's directory,
//! so that no path is too long for `sun_path` and none needs QEMU's escaping of commas.

use std::os::fd::RawFd;
use std::path::Path;

/// QEMU's machine type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MachineType {
    /// Virtio over MMIO and nothing else: boots fastest.
    Microvm,
    /// A PC with PCI and ACPI.
    Q35,
}

/// How the CPUs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accel {
    /// By the host's hardware virtualization.
    Kvm,
    /// By emulation in software (TCG).
    Tcg,
}

/// How the guest's vsock device is provided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vsock {
    /// By the host's kernel.
    Kernel {
        /// The open device, which the guest's address is already assigned to.
        device: RawFd,
    },
    /// By a vhost-user process behind [`VHOST_SOCKET`].
    User,
}

/// Everything that QEMU's command line depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec<'a> {
    /// The enclave's name, for process listings.
    pub(crate) name: &'a str,
    /// The machine type.
    pub(crate) machine: MachineType,
    /// How the CPUs run.
    pub(crate) accel: Accel,
    /// How vsock is provided.
    pub(crate) vsock: Vsock,
    /// The guest's vsock address.
    pub(crate) cid: u32,
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Memory in bytes; whole MiB.
    pub(crate) memory: u64,
    /// The kernel.
    pub(crate) kernel: &'a Path,
    /// All ramdisks in one file.
    pub(crate) initrd: &'a Path,
    /// The kernel command line.
    pub(crate) cmdline: &'a str,
}

/// Everything that the command line of a `nitro-enclave` machine depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NitroSpec<'a> {
    /// The enclave's name, for process listings.
    pub(crate) name: &'a str,
    /// How the CPUs run.
    pub(crate) accel: Accel,
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Memory in bytes; whole MiB.
    pub(crate) memory: u64,
    /// The enclave image file.
    pub(crate) image: &'a Path,
    /// Arguments that the machine appends to the image's kernel command line.
    pub(crate) append: &'a str,
}

/// The socket on which the vhost-user vsock device listens for QEMU, in the enclave's directory.
pub(crate) const VHOST_SOCKET: &str = "vhost.sock";

/// The socket on which QEMU listens for QMP, in the enclave's directory.
pub(crate) const QMP_SOCKET: &str = "qmp.sock";

/// What QEMU must not do once it runs: start programs, gain privileges, change its limits, use obsolete system calls.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// The arguments of QEMU, without the program.
pub(crate) fn argv(spec: &Spec<'_>) -> Vec<String> {
    let mib = spec.memory >> 20;
    let mut argv = Vec::new();
    let mut add = |option: &str, value: String| argv.extend([option.to_owned(), value]);
    add("-name", format!("cloister-{}", spec.name));
    add("-machine", machine(spec));
    add("-accel", accel(spec.accel).to_owned());
    add("-cpu", cpu(spec.accel).to_owned());
    add("-smp", spec.cpus.to_string());
    add("-m", format!("{mib}M"));
    if spec.vsock == Vsock::User {
        add("-object", format!("memory-backend-memfd,id=memory,size={mib}M,share=on"));
    }
    add("-kernel", spec.kernel.display().to_string());
    add("-initrd", spec.initrd.display().to_string());
    add("-append", spec.cmdline.to_owned());
    // The console is QEMU's standard output; its monitor is QMP alone.
    add("-display", "none".to_owned());
    add("-chardev", "stdio,id=console,signal=off".to_owned());
    add("-serial", "chardev:console".to_owned());
    add("-qmp", format!("unix:{QMP_SOCKET},server=on,wait=off"));
    vsock(spec, &mut add);
    add("-sandbox", SANDBOX.to_owned());
    // The guest powers a microvm off by a reboot: without ACPI there is no other way.
    argv.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(str::to_owned));
    argv
}

/// Where Debian's packages install the firmware that a QEMU built by scripts/qemu-nitro lacks. Another QEMU has its own, which
/// takes precedence.
const FIRMWARE: [&str; 2] = ["/usr/share/qemu", "/usr/share/seabios"];

/// The arguments of QEMU for an emulated AWS Nitro enclave, without the program. There is no `-sandbox`: the QEMU of
/// scripts/qemu-nitro is built without support for it, and is for development.
pub(crate) fn nitro(spec: &NitroSpec<'_>) -> Vec<String> {
    let mut argv = Vec::new();
    let mut add = |option: &str, value: String| argv.extend([option.to_owned(), value]);
    add("-name", format!("cloister-{}", spec.name));
    add("-machine", format!("nitro-enclave,vsock=vsock,id=cloister-{}", spec.name));
    for directory in FIRMWARE {
        add("-L", directory.to_owned());
    }
    add("-accel", accel(spec.accel).to_owned());
    add("-cpu", cpu(spec.accel).to_owned());
    add("-smp", spec.cpus.to_string());
    add("-m", format!("{}M", spec.memory >> 20));
    add("-kernel", spec.image.display().to_string());
    add("-append", spec.append.to_owned());
    add("-display", "none".to_owned());
    add("-chardev", "stdio,id=console,signal=off".to_owned());
    add("-serial", "chardev:console".to_owned());
    add("-qmp", format!("unix:{QMP_SOCKET},server=on,wait=off"));
    add("-chardev", format!("socket,id=vsock,path={VHOST_SOCKET}"));
    // The driver of the security module queues a request and the buffer for its response one after the other, and QEMU marks
    // the device as broken if it sees the first without the second (`handle_input` of its hw/virtio/virtio-nsm.c). With ioeventfd
    // off, the guest's notification is handled synchronously and not by another thread, so this cannot happen.
    add("-global", "virtio-mmio.ioeventfd=off".to_owned());
    // An enclave powers off by a reboot.
    argv.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(str::to_owned));
    argv
}

fn machine(spec: &Spec<'_>) -> String {
    let memory = if spec.vsock == Vsock::User { ",memory-backend=memory" } else { "" };
    match spec.machine {
        MachineType::Microvm => format!("microvm,acpi=off{memory}"),
        MachineType::Q35 => format!("q35{memory}"),
    }
}

const fn accel(accel: Accel) -> &'static str {
    match accel {
        Accel::Kvm => "kvm",
        Accel::Tcg => "tcg,thread=multi",
    }
}

/// The processor. Under TCG it does not offer fast string instructions: Linux then copies and clears memory by words, while
/// QEMU executes `rep movsb` and `rep stosb` byte by byte (`gen_repz` of its `target/i386`).
const fn cpu(accel: Accel) -> &'static str {
    match accel {
        Accel::Kvm => "host",
        Accel::Tcg => "max,erms=off,fsrm=off",
    }
}

fn vsock(spec: &Spec<'_>, add: &mut impl FnMut(&str, String)) {
    let bus = match spec.machine {
        MachineType::Microvm => "device",
        MachineType::Q35 => "pci",
    };
    match spec.vsock {
        Vsock::Kernel { device } => {
            add("-device", format!("vhost-vsock-{bus},guest-cid={},vhostfd={device}", spec.cid));
        }
        Vsock::User => {
            add("-chardev", format!("socket,id=vsock,path={VHOST_SOCKET}"));
            add("-device", format!("vhost-user-vsock-{bus},chardev=vsock"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec<'static> {
        Spec {
            name: "web",
            machine: MachineType::Microvm,
            accel: Accel::Tcg,
            vsock: Vsock::User,
            cid: 7,
            cpus: 2,
            memory: 512 << 20,
            kernel: Path::new("/app/kernel"),
            initrd: Path::new("/proc/self/fd/9"),
            cmdline: "console=ttyS0 quiet",
        }
    }

    #[test]
    fn a_microvm_under_tcg_has_this_command_line() {
        assert_eq!(
            argv(&spec()).join(" "),
            "-name cloister-web -machine microvm,acpi=off,memory-backend=memory -accel tcg,thread=multi \
             -cpu max,erms=off,fsrm=off -smp 2 -m 512M -object memory-backend-memfd,id=memory,size=512M,share=on -kernel /app/kernel \
             -initrd /proc/self/fd/9 -append console=ttyS0 quiet -display none \
             -chardev stdio,id=console,signal=off -serial chardev:console -qmp unix:qmp.sock,server=on,wait=off \
             -chardev socket,id=vsock,path=vhost.sock -device vhost-user-vsock-device,chardev=vsock \
             -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
             -nodefaults -no-user-config -no-reboot"
        );
    }

    #[test]
    fn a_q35_on_kvm_with_the_kernels_vsock_has_this_command_line() {
        let spec = Spec {
            machine: MachineType::Q35,
            accel: Accel::Kvm,
            vsock: Vsock::Kernel { device: 11 },
            ..spec()
        };
        assert_eq!(
            argv(&spec).join(" "),
            "-name cloister-web -machine q35 -accel kvm -cpu host -smp 2 -m 512M -kernel /app/kernel \
             -initrd /proc/self/fd/9 -append console=ttyS0 quiet -display none \
             -chardev stdio,id=console,signal=off -serial chardev:console -qmp unix:qmp.sock,server=on,wait=off \
             -device vhost-vsock-pci,guest-cid=7,vhostfd=11 \
             -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
             -nodefaults -no-user-config -no-reboot"
        );
    }

    #[test]
    fn a_nitro_enclave_under_tcg_has_this_command_line() {
        let spec = NitroSpec {
            name: "web",
            accel: Accel::Tcg,
            cpus: 2,
            memory: 512 << 20,
            image: Path::new("/proc/self/fd/9"),
            append: "reboot=t",
        };
        assert_eq!(
            nitro(&spec).join(" "),
            "-name cloister-web -machine nitro-enclave,vsock=vsock,id=cloister-web -L /usr/share/qemu \
             -L /usr/share/seabios -accel tcg,thread=multi -cpu max,erms=off,fsrm=off -smp 2 -m 512M -kernel /proc/self/fd/9 \
             -append reboot=t -display none -chardev stdio,id=console,signal=off -serial chardev:console \
             -qmp unix:qmp.sock,server=on,wait=off -chardev socket,id=vsock,path=vhost.sock \
             -global virtio-mmio.ioeventfd=off -nodefaults -no-user-config -no-reboot"
        );
    }

    #[test]
    fn only_a_vhost_user_device_needs_shared_memory() {
        let kernel = argv(&Spec { vsock: Vsock::Kernel { device: 11 }, ..spec() });
        assert!(!kernel.iter().any(|argument| argument.contains("memory-backend")));
    }
}
