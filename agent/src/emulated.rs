//! What a machine needs whose processor is a program: QEMU without KVM, many times slower.
//!
//! The agent knows it by the processor itself, so neither the cluster file nor the seed says it, and a cluster file that
//! is meant for real machines comes up unchanged, whoever started QEMU. What stands in a component's flags is written by
//! the first control plane for the whole cluster: all machines of a cluster are of one kind.

use std::collections::BTreeMap;

use crate::plan::FileSpec;
use crate::render::WRITTEN_BY;
use crate::role::{Deadlines, NodeSpec, Role, Vrrp};

/// A manager that cannot renew its lease in time ends and begins anew, which costs the others more of their time.
const LEASES: [(&str, &str); 3] = [
    ("leader-elect-lease-duration", "120s"),
    ("leader-elect-renew-deadline", "90s"),
    ("leader-elect-retry-period", "15s"),
];

/// Members that share processors hear their leader late: each election stops the API and costs more than it waits for.
/// etcd wants the second to be at least five times the first.
const ETCD: [(&str, &str); 2] = [("heartbeat-interval", "500"), ("election-timeout", "5000")];

/// With less between two adverts, machines that wait for a processor lose the VIP to each other every few seconds, and
/// each move cuts every connection to the API.
const ADVERT_MS: u32 = 3000;

/// A program of Go has a thread for each processor, and they look for work in each other and wake each other up; every
/// switch from one process to another costs an emulated processor all that it knew of its memory. Both processors
/// have enough to do with one thread of each program.
pub const ENVIRONMENT: (&str, &str) = ("GOMAXPROCS", "1");

/// Of units that have most of the work, and whose containers inherit how they are scheduled.
pub const DROP_INS: [&str; 6] = [
    "/etc/systemd/system/containerd.service.d/50-kindling-emulated.conf",
    "/etc/systemd/system/docker.service.d/50-kindling-emulated.conf",
    "/etc/systemd/system/cri-docker.service.d/50-kindling-emulated.conf",
    "/etc/systemd/system/crio.service.d/50-kindling-emulated.conf",
    "/etc/systemd/system/kubelet.service.d/50-kindling-emulated.conf",
    "/etc/systemd/system/etcd.service.d/50-kindling-emulated.conf",
];

/// Whoever wakes up does not take the processor from who runs, a turn is seven times as long, and sleeps that may end late
/// end together (sched(7), PR_SET_TIMERSLACK in prctl(2)). The turn is the kernel's own setting, which a kernel locked
/// down by Secure Boot keeps: nothing is lost then but the time. With all of it kubeadm init takes 253 s instead of 548.
pub fn drop_ins() -> Vec<FileSpec> {
    let (name, value) = ENVIRONMENT;
    let text = format!(
        "{WRITTEN_BY}[Service]\nEnvironment={name}={value}\nCPUSchedulingPolicy=batch\nTimerSlackNSec=50ms\n\
         ExecStartPre=-+/bin/sh -c 'echo 20000000 >/sys/kernel/debug/sched/base_slice_ns'\n"
    );
    DROP_INS.map(|path| FileSpec::public(path, text.clone())).into()
}

/// QEMU's translator signs itself so in CPUID leaf 0x4000_0000: EBX, ECX, EDX (target/i386/cpu.c).
const SIGNATURE: &[u8; 12] = b"TCGTCGTCGTCG";

/// Whether this machine's processor is emulated. Only x86 tells: elsewhere the firmware's tables are the same with KVM.
#[cfg(target_arch = "x86_64")]
pub fn here() -> bool {
    // Made safe by a later Rust than the oldest that builds this.
    #[allow(unused_unsafe)]
    // SAFETY: every x86-64 processor has the instruction.
    let leaf = unsafe { std::arch::x86_64::__cpuid(0x4000_0000) };
    is_translator([leaf.ebx, leaf.ecx, leaf.edx])
}

#[cfg(not(target_arch = "x86_64"))]
pub fn here() -> bool {
    false
}

/// A processor below no hypervisor answers with whatever its last leaf has.
fn is_translator(registers: [u32; 3]) -> bool {
    registers.map(u32::to_le_bytes).as_flattened() == SIGNATURE
}

/// The spec as an emulated machine needs it. What the operator gave by himself stays, but for times that are too short.
pub fn suit(mut spec: NodeSpec, emulated: bool) -> NodeSpec {
    if !emulated {
        return spec;
    }
    let (Deadlines { cluster, kubeadm, ready }, default) = (spec.deadlines, Deadlines::default());
    // kubeadm's own times are parts of its deadline.
    spec.deadlines = Deadlines {
        cluster: cluster.max(3 * default.cluster),
        kubeadm: kubeadm.max(3 * default.kubeadm),
        ready: ready.max(3 * default.ready),
    };
    match &mut spec.role {
        Role::ControlPlane(role) => {
            // A start is not over before fairness has written its objects to etcd, and it keeps account of every queue.
            add(&mut role.api_server_args, &[("enable-priority-and-fairness", "false")]);
            // The kubelet ends an API server whose /livez fails, and it fails when etcd takes two seconds.
            add(&mut role.api_server_args, &[("etcd-healthcheck-timeout", "10s")]);
            add(&mut role.api_server_args, &[("etcd-readycheck-timeout", "10s")]);
            add(&mut role.controller_manager_args, &LEASES);
            // A kubelet that reports late is not dead: its pods would be taken out of their Services.
            add(&mut role.controller_manager_args, &[("node-monitor-grace-period", "120s")]);
            add(&mut role.scheduler_args, &LEASES);
            if role.etcd.is_none() {
                add(&mut role.etcd_args, &ETCD);
            }
            role.vrrp.iter_mut().for_each(slow);
        }
        Role::Etcd(role) => add(&mut role.args, &ETCD),
        Role::LoadBalancer(role) => slow(&mut role.vrrp),
        Role::Worker(_) => {}
    }
    spec
}

/// Adds flags that must fit each other: none, where the operator gave one of them.
fn add(args: &mut BTreeMap<String, String>, flags: &[(&str, &str)]) {
    if flags.iter().any(|(name, _)| args.contains_key(*name)) {
        return;
    }
    args.extend(flags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
}

/// Where nobody else may hold the VIP, its only holder would wait longer before it claims it.
fn slow(vrrp: &mut Vrrp) {
    if !vrrp.peers.is_empty() {
        vrrp.advert_ms = vrrp.advert_ms.max(ADVERT_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_qemus_translator_is_known_by_its_signature() {
        let of = |text: &[u8; 12]| {
            let word = |at: usize| u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]]);
            [word(0), word(4), word(8)]
        };
        assert!(is_translator(of(b"TCGTCGTCGTCG")));
        for other in [b"KVMKVMKVM\0\0\0", b"Microsoft Hv", b"VMwareVMware", &[0; 12]] {
            assert!(!is_translator(of(other)), "{other:?}");
        }
    }

    #[test]
    fn flags_that_belong_together_are_the_operators_or_ours() {
        let mut args = BTreeMap::from([("leader-elect-lease-duration".to_owned(), "60s".to_owned())]);
        add(&mut args, &LEASES);
        assert_eq!(args.len(), 1, "a renew deadline above the operator's lease would stop the component");
        let mut args = BTreeMap::from([("v".to_owned(), "2".to_owned())]);
        add(&mut args, &LEASES);
        assert_eq!(args.len(), 4);
    }
}
