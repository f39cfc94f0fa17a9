//! QEMU's command lines: pure, so that tests can say exactly what they are. Every path in them is relative
//! to the state folder, as a unix socket's path may have 108 bytes at most.

use std::net::Ipv4Addr;
use std::path::Path;

use crate::up::UpError;
use crate::up::memory::{HOST_MB, TRANSLATED_MB};
use crate::up::plan::{Machine, UpPlan};
use crate::up::tools::text;

/// What runs the guests' code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    Tcg(Translation),
}

/// In MiB: the most that QEMU takes for an x86 host (tcg/region.c); its own size is [`TRANSLATED_MB`].
const LARGEST_BUFFER: u64 = 2047;

/// How QEMU translates the guests' code, where there is no KVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    pub buffer_mb: u64,
    pub threads: Threads,
}

/// What runs a machine's virtual processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// One for each.
    Multi,
    /// One for all of them, in turn.
    Single,
}

impl Translation {
    /// On a host with `host_mb` MiB of memory and `host_cpus` processors.
    ///
    /// A control plane's translated code is about 1.1 GiB: with QEMU's 1 GiB all of it is thrown away and translated
    /// again every few minutes, which stops the API server for seconds each time. More only where the host has it to
    /// spare, beside the guests and what it keeps for itself.
    ///
    /// Where there are more machines than processors none has more than one for itself, and one of its virtual
    /// processors would wait in spin locks for another that does not run.
    pub fn on(host_mb: u64, host_cpus: usize, machines: &[Machine]) -> Self {
        let guests: u64 = machines.iter().map(|machine| u64::from(machine.memory_mb)).sum();
        let count = u64::try_from(machines.len()).unwrap_or(u64::MAX).max(1);
        let buffer_mb =
            (host_mb.saturating_sub(guests + HOST_MB) / count).clamp(TRANSLATED_MB, LARGEST_BUFFER);
        let threads = if machines.len() > host_cpus { Threads::Single } else { Threads::Multi };
        Self { buffer_mb, threads }
    }
}

/// Taken by systemd-stub(7) from the firmware (kernel-parameters.txt has both).
///
/// Timers of the kernel's tick: a control plane's many short sleeps end some thousand times a second otherwise, each of
/// which costs an emulated processor all that it knew of its memory; an idle one takes a fifth less so. And a time stamp
/// counter that is trusted: QEMU makes it of the host's clock, but a guest that waits for a processor in the middle of a
/// comparison calls it unstable, and reads a slow device for each look at the clock from then on.
const EMULATED: &str = "type=11,value=io.systemd.stub.kernel-cmdline-extra=highres=off tsc=reliable";

/// UEFI firmware: code that all machines share, and the template of each one's variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    pub code: String,
    pub vars: String,
}

fn folder(machine: &Machine) -> String {
    format!("nodes/{}", machine.name)
}

pub fn machine(machine: &Machine, uuid: &str, accelerator: Accelerator, firmware: &Firmware) -> Vec<String> {
    let folder = folder(machine);
    let (accel, cpu, smbios) = match accelerator {
        Accelerator::Kvm => ("kvm".to_owned(), "host", None),
        Accelerator::Tcg(Translation { buffer_mb, threads }) => {
            let threads = match threads {
                Threads::Multi => "multi",
                Threads::Single => "single",
            };
            (format!("tcg,thread={threads},tb-size={buffer_mb}"), "max", Some(EMULATED))
        }
    };
    let mut args = Args::new("qemu-system-x86_64");
    args.add("-name", &machine.name);
    args.flags(&["-no-user-config", "-nodefaults"]);
    args.add("-machine", "q35").add("-accel", accel).add("-cpu", cpu);
    args.add("-smp", machine.cpus).add("-m", machine.memory_mb).add("-uuid", uuid);
    if let Some(smbios) = smbios {
        args.add("-smbios", smbios);
    }
    args.add("-display", "none");
    args.add("-drive", format!("if=pflash,unit=0,format=raw,readonly=on,file={}", firmware.code));
    args.add("-drive", format!("if=pflash,unit=1,format=raw,file={folder}/vars.fd"));
    // No cache=unsafe: a power cut must leave what the guest had flushed.
    args.add("-drive", format!("if=none,id=disk,format=qcow2,discard=unmap,file={folder}/disk.qcow2"));
    args.add("-device", "virtio-blk-pci,drive=disk,bootindex=0");
    args.add("-drive", format!("if=none,id=seed,format=raw,readonly=on,file={folder}/seed.img"));
    args.add("-device", "virtio-blk-pci,drive=seed");
    args.add(
        "-netdev",
        format!("stream,id=net,server=off,addr.type=unix,addr.path=switch/{}.sock", machine.index),
    );
    args.add("-device", format!("virtio-net-pci,netdev=net,mac={}", machine.mac));
    args.add("-device", "virtio-rng-pci");
    args.add("-chardev", format!("file,id=console,append=on,path={folder}/console.log"));
    args.add("-serial", "chardev:console");
    args.add("-qmp", format!("unix:{folder}/qmp.sock,server=on,wait=off"));
    args.0
}

/// A QEMU without a machine is the host's way to the API: a forwarded port, through slirp, to the switch.
/// `restrict=on` keeps every packet on this host.
pub fn gateway(plan: &UpPlan, port: u16) -> Result<Vec<String>, UpError> {
    let mut args = Args::new("qemu-system-x86_64");
    args.add("-name", format!("{}-gateway", plan.cluster));
    args.flags(&["-no-user-config", "-nodefaults"]);
    args.add("-machine", "none").add("-display", "none");
    let (dns, dhcp) = unused(plan)?;
    let (api, network) = (&plan.api, &plan.network);
    args.add(
        "-netdev",
        format!(
            "user,id=host,restrict=on,ipv6=off,net={},host={},dns={dns},dhcpstart={dhcp},hostfwd=tcp:127.0.0.1:{port}-{}:{}",
            network.subnet, network.gateway, api.address, api.port
        ),
    );
    args.add("-netdev", "stream,id=switch,server=off,addr.type=unix,addr.path=switch/host.sock");
    args.add("-netdev", "hubport,id=hub0,hubid=0,netdev=host");
    args.add("-netdev", "hubport,id=hub1,hubid=0,netdev=switch");
    Ok(args.0)
}

/// slirp answers for its name server and hands out addresses; both must be nobody's, or it answers ARP
/// requests in a node's place. The highest free addresses of the subnet.
fn unused(plan: &UpPlan) -> Result<(Ipv4Addr, Ipv4Addr), UpError> {
    let subnet = plan.network.subnet;
    let taken = |address: &Ipv4Addr| {
        *address == plan.network.gateway
            || *address == plan.api.address
            || plan.machines.iter().any(|m| m.address == *address)
    };
    let (first, last) = (u32::from(subnet.network()) + 1, u32::from(subnet.broadcast()).saturating_sub(1));
    let mut free = (first..=last).rev().map(Ipv4Addr::from).filter(|a| !taken(a));
    match (free.next(), free.next()) {
        (Some(dns), Some(dhcp)) => Ok((dns, dhcp)),
        _ => Err(UpError::new(
            format!("{subnet} has no two free addresses, which QEMU's network needs for itself"),
            "use a larger subnet",
        )),
    }
}

/// An empty disk over the baked one.
pub fn disk(backing: &Path, disk: &Path, size_gb: u32) -> Vec<String> {
    let mut args = Args::new("qemu-img");
    args.flags(&["create", "-q", "-f", "qcow2", "-F", "qcow2"]);
    args.add("-b", backing.display());
    args.flags(&[&text(disk), &format!("{size_gb}G")]);
    args.0
}

struct Args(Vec<String>);

impl Args {
    fn new(program: &str) -> Self {
        Self(vec![program.to_owned()])
    }

    fn add(&mut self, key: &str, value: impl ToString) -> &mut Self {
        self.0.extend([key.to_owned(), value.to_string()]);
        self
    }

    fn flags(&mut self, flags: &[&str]) {
        self.0.extend(flags.iter().map(|f| (*f).to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::types::RoleName;
    use crate::up::DriverName;
    use crate::up::plan::{Api, Network};

    fn node(index: usize, name: &str, last: u8) -> Machine {
        Machine {
            index,
            name: name.into(),
            role: RoleName::ControlPlane,
            first: index == 0,
            address: [10, 0, 0, last].into(),
            mac: format!("52:54:00:00:00:{last:02x}").parse().expect("a MAC"),
            interface: "host0".into(),
            cpus: 2,
            memory_mb: 2048,
        }
    }

    fn plan(subnet: &str) -> UpPlan {
        UpPlan {
            version: 1,
            cluster: "demo".into(),
            driver: DriverName::Qemu,
            image: "/image/kindling.qcow2".into(),
            image_id: String::new(),
            seeds: "/seeds".into(),
            seeds_id: String::new(),
            api: Api { address: [10, 0, 0, 1].into(), port: 6443, name: "kubeapi.kindling.test".into() },
            network: Network { gateway: [10, 0, 0, 2].into(), subnet: subnet.parse().expect("a subnet") },
            disk_gb: 20,
            machines: vec![node(0, "cp1", 3), node(1, "w1", 254)],
        }
    }

    #[test]
    fn a_machine_is_started_by_exactly_this() {
        let firmware = Firmware { code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(), vars: String::new() };
        let translation = Translation { buffer_mb: 1930, threads: Threads::Multi };
        let line = machine(&node(0, "cp1", 3), "0-0", Accelerator::Tcg(translation), &firmware).join(" ");
        assert_eq!(
            line,
            "qemu-system-x86_64 -name cp1 -no-user-config -nodefaults -machine q35 -accel tcg,thread=multi,tb-size=1930 -cpu max \
             -smp 2 -m 2048 -uuid 0-0 \
             -smbios type=11,value=io.systemd.stub.kernel-cmdline-extra=highres=off tsc=reliable -display none \
             -drive if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd \
             -drive if=pflash,unit=1,format=raw,file=nodes/cp1/vars.fd \
             -drive if=none,id=disk,format=qcow2,discard=unmap,file=nodes/cp1/disk.qcow2 \
             -device virtio-blk-pci,drive=disk,bootindex=0 \
             -drive if=none,id=seed,format=raw,readonly=on,file=nodes/cp1/seed.img -device virtio-blk-pci,drive=seed \
             -netdev stream,id=net,server=off,addr.type=unix,addr.path=switch/0.sock \
             -device virtio-net-pci,netdev=net,mac=52:54:00:00:00:03 -device virtio-rng-pci \
             -chardev file,id=console,append=on,path=nodes/cp1/console.log -serial chardev:console \
             -qmp unix:nodes/cp1/qmp.sock,server=on,wait=off"
        );
    }

    #[test]
    fn translated_code_gets_what_the_host_can_spare() {
        let machines = plan("10.0.0.0/24").machines;
        let buffer = |host_mb| Translation::on(host_mb, 2, &machines).buffer_mb;
        assert_eq!(buffer(4096), 1024, "QEMU's own is the least");
        assert_eq!(buffer(9144), 1500);
        assert_eq!(buffer(65_536), 2047, "and QEMU takes no more");
    }

    #[test]
    fn machines_that_share_a_processor_have_one_thread_each() {
        let machines = plan("10.0.0.0/24").machines;
        let threads = |host_cpus| Translation::on(4096, host_cpus, &machines).threads;
        assert_eq!(threads(machines.len()), Threads::Multi);
        assert_eq!(threads(machines.len() - 1), Threads::Single);
    }

    #[test]
    fn the_gateway_keeps_off_the_addresses_of_the_cluster() {
        let line = gateway(&plan("10.0.0.0/24"), 40001).expect("arguments").join(" ");
        assert_eq!(
            line,
            "qemu-system-x86_64 -name demo-gateway -no-user-config -nodefaults -machine none -display none \
             -netdev user,id=host,restrict=on,ipv6=off,net=10.0.0.0/24,host=10.0.0.2,dns=10.0.0.253,dhcpstart=10.0.0.252,\
             hostfwd=tcp:127.0.0.1:40001-10.0.0.1:6443 \
             -netdev stream,id=switch,server=off,addr.type=unix,addr.path=switch/host.sock \
             -netdev hubport,id=hub0,hubid=0,netdev=host -netdev hubport,id=hub1,hubid=0,netdev=switch"
        );
    }

    #[test]
    fn a_subnet_without_room_for_slirp_is_refused() {
        let error = gateway(&plan("10.0.0.0/30"), 40001).expect_err("no room").to_string();
        assert_eq!(
            error,
            "10.0.0.0/30 has no two free addresses, which QEMU's network needs for itself\n  remedy: use a larger subnet"
        );
    }
}
