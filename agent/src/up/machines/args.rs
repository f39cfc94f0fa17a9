//! Command lines of the machines driver: pure, so that tests can say exactly what they are.

use std::path::Path;

use crate::up::plan::{Machine, Network};
use crate::up::tools::text;

/// The names of network namespaces and control groups of one cluster: `kindling-ID` and `kindling-ID-NODE`.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: String,
}

impl Names {
    pub fn new(id: &str) -> Self {
        Self { prefix: format!("kindling-{id}") }
    }

    /// The namespace of the bridge.
    pub fn bridge(&self) -> &str {
        &self.prefix
    }

    /// Namespace and control group of a machine.
    pub fn machine(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub fn is_ours(&self, name: &str) -> bool {
        name.strip_prefix(&self.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    /// nspawn's name for it, which must be one host name of at most 64 characters.
    fn nspawn(&self, machine: &Machine) -> String {
        let name = self.machine(&machine.name);
        if name.len() <= 60 { name } else { format!("{}-{}", self.prefix, machine.index) }
    }
}

type Line = Vec<String>;

fn line(args: &[&str]) -> Line {
    args.iter().map(|a| (*a).to_owned()).collect()
}

/// A bridge in a namespace of its own, with the gateway's address. Nothing leads out of that namespace.
pub fn bridge(names: &Names, network: &Network) -> Vec<Line> {
    let ns = names.bridge();
    let address = format!("{}/{}", network.gateway, network.subnet.prefix_len());
    vec![
        line(&["ip", "netns", "add", ns]),
        line(&["ip", "-n", ns, "link", "set", "lo", "up"]),
        line(&["ip", "-n", ns, "link", "add", "br0", "type", "bridge"]),
        line(&["ip", "-n", ns, "address", "add", &address, "dev", "br0"]),
        line(&["ip", "-n", ns, "link", "set", "br0", "up"]),
        // With forwarding and no route, the gateway answers "unreachable" at once to whatever leads out. Without
        // it packets are swallowed, and whoever asks the internet waits for its own timeout.
        line(&["ip", "netns", "exec", ns, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]),
    ]
}

/// A namespace for a machine with a veth to the bridge. The machine's end is down and has no address: the
/// seed's network-config does the rest.
pub fn plug_in(names: &Names, machine: &Machine) -> Vec<Line> {
    let (bridge, ns) = (names.bridge(), names.machine(&machine.name));
    let (port, mac) = (port(machine), machine.mac.to_string());
    let peer = ["peer", "name", &machine.interface, "address", &mac, "netns", &ns];
    let mut veth = line(&["ip", "-n", bridge, "link", "add", &port, "type", "veth"]);
    veth.extend(line(&peer));
    vec![
        line(&["ip", "netns", "add", &ns]),
        veth,
        line(&["ip", "-n", bridge, "link", "set", &port, "master", "br0", "up"]),
    ]
}

/// The bridge's end of a machine's cable.
pub fn port(machine: &Machine) -> String {
    format!("n{}", machine.index)
}

/// Where a machine's files are, and what it needs of this host.
#[derive(Debug)]
pub struct Boot<'a> {
    pub tree: &'a Path,
    pub folder: &'a Path,
    /// Entered before the start, so that machines do not share one `system.slice`.
    pub cgroups: &'a [String],
    /// cgroup v1, or v1 beside v2.
    pub legacy_cgroups: bool,
    pub has_kmsg: bool,
}

/// Enters the control groups, lays the overlay over the tree and becomes nspawn. The mounts are in a
/// namespace of this process, so that they go with it however it ends. /etc is mounted once more beside the root,
/// because nspawn lays a read-only mount over that, through which no writable one could be made.
const LAUNCH: &str = r#"set -e
for group in $1; do echo $$ >"$group/cgroup.procs"; done
mount -t overlay -o "$2" overlay "$3"
mkdir -p "$3-etc"
mount --bind "$3/etc" "$3-etc"
shift 3
exec "$@""#;

pub fn launch(names: &Names, machine: &Machine, boot: &Boot<'_>) -> Line {
    let folder = boot.folder;
    let root = text(&folder.join("root"));
    let overlay = format!(
        "lowerdir={},upperdir={},workdir={}",
        boot.tree.display(),
        folder.join("upper").display(),
        folder.join("work").display()
    );
    // The whole of nspawn enters the network namespace: told to enter it itself, it mounts /sys before it
    // does, and cloud-init looks for the machine's link among the host's.
    let mut args = line(&["nsenter", &format!("--net=/run/netns/{}", names.machine(&machine.name)), "--"]);
    args.extend(line(&["unshare", "--mount", "--propagation", "slave", "--", "sh", "-c", LAUNCH, "launch"]));
    args.extend([boot.cgroups.join(" "), overlay, root.clone()]);
    args.extend(line(&["systemd-nspawn", "--register=no", "--keep-unit", "--boot", "--capability=all"]));
    args.push(format!("--directory={root}"));
    args.push(format!("--machine={}", names.nspawn(machine)));
    args.push(format!("--hostname={}", machine.name));
    // As the sealed disk is: nothing but /etc, /var and what is in memory can be written to.
    args.push("--read-only".into());
    args.push(format!("--bind={}:/etc", folder.join("root-etc").display()));
    args.push(format!("--bind={}:/var", folder.join("var").display()));
    if boot.has_kmsg {
        // The kubelet reads the kernel's log.
        args.push("--bind=/dev/kmsg".into());
    }
    // runc wants a session keyring.
    args.push("--system-call-filter=@keyring @privileged @raw-io bpf".into());
    args.extend(line(&["--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=read-only"]));
    if boot.legacy_cgroups {
        args.push("SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1".into());
    }
    args
}

/// Laid over the tree by this driver: what nspawn mounts read-only and a node must write, before anything
/// else runs. /sys itself stays read-only, or systemd would start udev in the machine.
pub const UNIT: &str = r#"[Unit]
Description=Kernel settings of a machine in namespaces, writable
DefaultDependencies=no
Before=sysinit.target systemd-sysctl.service systemd-modules-load.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/mount --make-rshared /
ExecStart=/bin/mount -o remount,bind,rw /proc/sys
ExecStart=/bin/sh -c 'while read -r _ path _; do case $path in /sys/fs/cgroup*) mount -o remount,bind,rw "$path" || exit 1;; esac; done </proc/self/mounts'
"#;
pub const UNIT_NAME: &str = "kindling-machine.service";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::types::RoleName;

    fn machine() -> Machine {
        Machine {
            index: 1,
            name: "w1".into(),
            role: RoleName::Worker,
            first: false,
            address: [10, 0, 0, 21].into(),
            mac: "52:54:00:8a:4d:57".parse().expect("a MAC"),
            interface: "host0".into(),
            cpus: 2,
            memory_mb: 2048,
        }
    }

    #[test]
    fn the_cable_is_made_in_the_bridges_namespace() {
        let names = Names::new("ab12cd");
        let lines: Vec<String> = plug_in(&names, &machine()).iter().map(|l| l.join(" ")).collect();
        assert_eq!(
            lines,
            [
                "ip netns add kindling-ab12cd-w1",
                "ip -n kindling-ab12cd link add n1 type veth peer name host0 address 52:54:00:8a:4d:57 netns kindling-ab12cd-w1",
                "ip -n kindling-ab12cd link set n1 master br0 up",
            ]
        );
    }

    #[test]
    fn the_launch_line_is_exactly_this() {
        let cgroups = [
            "/sys/fs/cgroup/cpu/kindling-ab12cd-w1".to_owned(),
            "/sys/fs/cgroup/pids/kindling-ab12cd-w1".to_owned(),
        ];
        let boot = Boot {
            tree: Path::new("/image/tree"),
            folder: Path::new("/s/nodes/w1"),
            cgroups: &cgroups,
            legacy_cgroups: true,
            has_kmsg: true,
        };
        assert_eq!(
            launch(&Names::new("ab12cd"), &machine(), &boot),
            [
                "nsenter",
                "--net=/run/netns/kindling-ab12cd-w1",
                "--",
                "unshare",
                "--mount",
                "--propagation",
                "slave",
                "--",
                "sh",
                "-c",
                LAUNCH,
                "launch",
                "/sys/fs/cgroup/cpu/kindling-ab12cd-w1 /sys/fs/cgroup/pids/kindling-ab12cd-w1",
                "lowerdir=/image/tree,upperdir=/s/nodes/w1/upper,workdir=/s/nodes/w1/work",
                "/s/nodes/w1/root",
                "systemd-nspawn",
                "--register=no",
                "--keep-unit",
                "--boot",
                "--capability=all",
                "--directory=/s/nodes/w1/root",
                "--machine=kindling-ab12cd-w1",
                "--hostname=w1",
                "--read-only",
                "--bind=/s/nodes/w1/root-etc:/etc",
                "--bind=/s/nodes/w1/var:/var",
                "--bind=/dev/kmsg",
                "--system-call-filter=@keyring @privileged @raw-io bpf",
                "--resolv-conf=off",
                "--timezone=off",
                "--link-journal=no",
                "--console=read-only",
                "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
            ]
        );
    }

    #[test]
    fn another_clusters_names_are_not_ours() {
        let names = Names::new("ab12cd");
        assert!(names.is_ours("kindling-ab12cd") && names.is_ours("kindling-ab12cd-w1"));
        assert!(
            !names.is_ours("kindling-ab12ce-w1")
                && !names.is_ours("kindling-ab12cdx")
                && !names.is_ours("cni-1")
        );
    }
}
