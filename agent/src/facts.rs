//! Facts: a read-only snapshot of the host, taken before anything is planned.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use futures_util::TryStreamExt;
use ipnet::Ipv4Net;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{LinkAttribute, LinkFlags};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use serde::Serialize;

use crate::host::{Command, Host, exists, read_text};
use crate::image::Image;
use crate::role::NodeSpec;
use crate::role::etcd_version::EtcdVersion;
use crate::role::types::{KubernetesVersion, MacAddress, RuntimeName};
use crate::status::{STATUS_FILE, Status};

/// Where the image keeps the manifests of its add-ons, one NAME.yaml each.
pub const ADDONS_FOLDER: &str = "/usr/share/kindling/addons";

#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Facts {
    pub interfaces: Vec<Interface>,
    pub default_gateway: Option<Ipv4Addr>,
    pub image: Option<Image>,
    pub cpus: usize,
    pub memory_mb: u64,
    pub machine_id: Option<String>,
    /// The hypervisor's id of the VM; containers and some hypervisors have none.
    pub product_uuid: Option<String>,
    /// Devices and files that are swapped to.
    pub swap: Vec<String>,
    /// TCP ports that somebody listens on, on any address.
    pub listening: BTreeSet<u16>,
    /// Of the file system of /var, in percent: what the kubelet judges disk pressure by.
    pub disk_free: Option<u8>,
    /// Whether this process may not lower an OOM score (CAP_SYS_RESOURCE, capabilities(7)).
    pub no_sys_resource: bool,
    /// Kernel modules that are loaded or built in.
    pub modules: BTreeSet<String>,
    pub cgroup_v1: bool,
    /// The kind of system container, as systemd names it; `None` on a machine with a kernel of its own.
    pub container: Option<String>,
    /// The processor is a program: QEMU without KVM.
    pub emulated: bool,
    pub kubeadm: Option<KubernetesVersion>,
    pub containerd: Option<(u32, u32)>,
    /// The sandbox image that this kubeadm expects.
    pub pause_image: Option<String>,
    /// Whether dockerd is in the image.
    pub docker: bool,
    /// Whether cri-dockerd is in the image.
    pub cri_dockerd: bool,
    /// Whether CRI-O is in the image.
    pub crio: bool,
    /// The etcd in the image; `None` where it or its command is not there, or tells no version. Asked only on a machine of an
    /// external etcd.
    pub etcd: Option<EtcdVersion>,
    /// Names of the add-ons that are in the image.
    pub addons: Vec<String>,
    /// Firewalls that are on, by name.
    pub firewalls: Vec<String>,
    /// kubeadm has begun on this machine: its ports are ours.
    pub kubeadm_began: bool,
    /// This machine is in the cluster: `kubeadm init` or `join` was completed on it.
    pub joined: bool,
    /// Kindling has begun on this machine: the load balancer's ports are ours.
    pub kindling_began: bool,
}

/// Its bit in a set of capabilities (linux/capability.h).
const CAP_SYS_RESOURCE: u64 = 1 << 24;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Interface {
    pub name: String,
    pub mac: Option<MacAddress>,
    pub up: bool,
    pub addresses: Vec<Ipv4Net>,
}

impl Facts {
    /// A system container without CAP_SYS_RESOURCE: the runtime must leave OOM scores as they are, and give no pod that capability.
    pub fn keeps_oom_scores(&self) -> bool {
        self.container.is_some() && self.no_sys_resource
    }

    /// The interface that has this address.
    pub fn interface_of(&self, address: Ipv4Addr) -> Option<&str> {
        self.interfaces
            .iter()
            .find(|i| i.addresses.iter().any(|a| a.addr() == address))
            .map(|i| i.name.as_str())
    }

    pub fn gather(spec: &NodeSpec, host: &dyn Host) -> std::io::Result<Self> {
        let (interfaces, default_gateway) = network()?;
        let mut facts = Self { interfaces, default_gateway, ..Self::gather_files(host) };
        facts.memory_mb = memory_mb()?;
        facts.emulated = crate::emulated::here();
        let mut system = sysinfo::System::new().map_err(std::io::Error::other)?;
        system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
        facts.cpus = system.cpus().len();
        facts.disk_free = nix::sys::statvfs::statvfs("/var").ok().map(|disk| {
            let percent = disk.blocks_available() * 100 / disk.blocks().max(1);
            u8::try_from(percent).unwrap_or(100)
        });
        facts.gather_versions(spec, host);
        facts.firewalls = firewalls(host);
        Ok(facts)
    }

    /// What stands in files; the tests read a fake host's.
    fn gather_files(host: &dyn Host) -> Self {
        let lines = |path: &str| -> Vec<String> {
            read_text(host, path).unwrap_or_default().lines().map(str::to_owned).collect()
        };
        let release = read_text(host, "/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut modules: BTreeSet<String> =
            lines("/proc/modules").iter().filter_map(|l| l.split(' ').next()).map(str::to_owned).collect();
        modules.extend(
            lines(&format!("/lib/modules/{}/modules.builtin", release.trim()))
                .iter()
                .filter_map(|l| l.rsplit('/').next()?.strip_suffix(".ko"))
                .map(|m| m.replace('-', "_")),
        );
        // A kernel without modules has no list of what is built in; these two leave traces.
        if lines("/proc/filesystems").iter().any(|l| l.ends_with("\toverlay")) {
            modules.insert("overlay".into());
        }
        if exists(host, "/proc/sys/net/bridge/bridge-nf-call-iptables") {
            modules.insert("br_netfilter".into());
        }
        let record: Option<Status> =
            read_text(host, STATUS_FILE).and_then(|text| serde_json::from_str(&text).ok());
        Self {
            machine_id: read_text(host, "/etc/machine-id")
                .map(|t| t.trim().to_owned())
                .filter(|t| !t.is_empty()),
            image: Image::running(host),
            product_uuid: read_text(host, "/sys/class/dmi/id/product_uuid").map(|t| t.trim().to_lowercase()),
            no_sys_resource: lines("/proc/self/status")
                .iter()
                .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
                .is_some_and(|capabilities| capabilities & CAP_SYS_RESOURCE == 0),
            swap: lines("/proc/swaps")
                .iter()
                .skip(1)
                .filter_map(|l| l.split(' ').next())
                .map(str::to_owned)
                .collect(),
            listening: listening(host),
            modules,
            cgroup_v1: !exists(host, "/sys/fs/cgroup/cgroup.controllers"),
            // Debian's and Ubuntu's, and docker's own package.
            docker: ["/usr/sbin/dockerd", "/usr/bin/dockerd"].iter().any(|path| exists(host, path)),
            cri_dockerd: exists(host, "/usr/bin/cri-dockerd"),
            crio: exists(host, "/usr/bin/crio"),
            addons: host
                .list(Path::new(ADDONS_FOLDER))
                .unwrap_or_default()
                .iter()
                .filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned))
                .collect(),
            container: read_text(host, "/run/systemd/container").map(|t| t.trim().to_owned()),
            kubeadm_began: [
                "/etc/kubernetes/admin.conf",
                "/etc/kubernetes/kubelet.conf",
                "/etc/kubernetes/bootstrap-kubelet.conf",
                "/var/lib/etcd/member",
            ]
            .iter()
            .any(|p| exists(host, p))
                || host
                    .list(Path::new("/etc/kubernetes/manifests"))
                    .unwrap_or_default()
                    .iter()
                    // Neither does the kubelet read those: its package has a .kubelet-keep there.
                    .any(|name| !name.starts_with('.')),
            joined: record.as_ref().is_some_and(Status::has_joined),
            // A run that ended in preflight has begun nothing.
            kindling_began: record
                .is_some_and(|status| status.steps.iter().any(|s| s.id != "preflight" && s.begun > 0)),
            ..Self::default()
        }
    }

    fn gather_versions(&mut self, spec: &NodeSpec, host: &dyn Host) {
        if spec.etcd().is_some() && exists(host, "/usr/bin/etcdctl") {
            self.etcd = host
                .run(&Command::query("etcd", ["--version"]))
                .ok()
                .and_then(|o| EtcdVersion::of_program(&o.stdout));
        }
        let Some(kubernetes) = spec.kubernetes() else { return };
        self.kubeadm = host
            .run(&Command::query("kubeadm", ["version", "-o", "short"]))
            .ok()
            .and_then(|o| KubernetesVersion::of_program(&o.stdout));
        if kubernetes.runtime == RuntimeName::Containerd {
            self.containerd = host
                .run(&Command::query("containerd", ["--version"]))
                .ok()
                .and_then(|o| containerd_version(&o.stdout));
        }
        // With the version given, kubeadm asks no network for it.
        let mut args = vec![
            "config".to_owned(),
            "images".into(),
            "list".into(),
            format!("--kubernetes-version={}", kubernetes.version),
        ];
        if let Some(repository) = &kubernetes.image_repository {
            args.push(format!("--image-repository={repository}"));
        }
        self.pause_image = host
            .run(&Command::query("kubeadm", args))
            .ok()
            .and_then(|o| o.stdout.lines().map(str::trim).find(|l| l.contains("/pause:")).map(str::to_owned));
    }
}

/// TCP ports that somebody listens on, on any address.
pub fn listening(host: &dyn Host) -> BTreeSet<u16> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| read_text(host, path))
        .flat_map(|text| text.lines().filter_map(listening_port).collect::<Vec<_>>())
        .collect()
}

/// The local port of a line of /proc/net/tcp that is in state LISTEN (0A).
fn listening_port(line: &str) -> Option<u16> {
    let mut words = line.split_whitespace();
    let local = words.nth(1)?;
    if words.nth(1)? != "0A" {
        return None;
    }
    u16::from_str_radix(local.rsplit(':').next()?, 16).ok()
}

/// `containerd github.com/containerd/containerd v1.7.24 ...` -> (1, 7)
fn containerd_version(text: &str) -> Option<(u32, u32)> {
    let word = text
        .split_whitespace()
        .find(|w| w.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()))?;
    let mut parts = word.trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Firewalls that block what is not listed: firewalld, ufw, or an input chain whose policy is drop.
fn firewalls(host: &dyn Host) -> Vec<String> {
    let mut found = Vec::new();
    if host.run(&Command::query("systemctl", ["is-active", "--quiet", "firewalld.service"])).is_ok() {
        found.push("firewalld".to_owned());
    }
    if read_text(host, "/etc/ufw/ufw.conf")
        .is_some_and(|t| t.lines().any(|l| l.trim().eq_ignore_ascii_case("ENABLED=yes")))
    {
        found.push("ufw".to_owned());
    }
    let chains =
        host.run(&Command::query("nft", ["--json", "list", "chains"])).map(|o| o.stdout).unwrap_or_default();
    if let Ok(list) = serde_json::from_str::<serde_json::Value>(&chains) {
        for item in list["nftables"].as_array().into_iter().flatten() {
            let chain = &item["chain"];
            if chain["hook"] == "input" && chain["policy"] == "drop" {
                found.push(format!(
                    "nftables chain {} {}",
                    chain["table"].as_str().unwrap_or("?"),
                    chain["name"].as_str().unwrap_or("?")
                ));
            }
        }
    }
    found
}

/// The machine's memory in MiB, as kubeadm's preflight counts it.
pub fn memory_mb() -> std::io::Result<u64> {
    let mut system = sysinfo::System::new().map_err(std::io::Error::other)?;
    system.refresh_memory();
    Ok(system.total_memory() / 1024 / 1024)
}

/// Links, their IPv4 addresses and the default gateway, by rtnetlink.
fn network() -> std::io::Result<(Vec<Interface>, Option<Ipv4Addr>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        read_network(&handle).await.map_err(std::io::Error::other)
    })
}

async fn read_network(
    handle: &rtnetlink::Handle,
) -> Result<(Vec<Interface>, Option<Ipv4Addr>), rtnetlink::Error> {
    let mut found: Vec<(u32, Interface)> = Vec::new();
    let mut links = std::pin::pin!(handle.link().get().execute());
    while let Some(link) = links.try_next().await? {
        let mut interface = Interface {
            name: String::new(),
            mac: None,
            up: link.header.flags.contains(LinkFlags::Up),
            addresses: Vec::new(),
        };
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name = name,
                LinkAttribute::Address(bytes) => interface.mac = bytes.try_into().ok().map(MacAddress),
                _ => {}
            }
        }
        found.push((link.header.index, interface));
    }
    let mut addresses = std::pin::pin!(handle.address().get().execute());
    while let Some(message) = addresses.try_next().await? {
        let prefix = message.header.prefix_len;
        // IFA_LOCAL is the machine's own address; IFA_ADDRESS is the peer's on a point-to-point link.
        let local = message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
            _ => None,
        });
        let net = local.and_then(|ip| Ipv4Net::new(ip, prefix).ok());
        if let (Some(net), Some((_, interface))) =
            (net, found.iter_mut().find(|(index, _)| *index == message.header.index))
        {
            interface.addresses.push(net);
        }
    }
    let mut query = RouteMessage::default();
    query.header.address_family = netlink_packet_route::AddressFamily::Inet;
    let mut gateway = None;
    let mut routes = std::pin::pin!(handle.route().get(query).execute());
    while let Some(route) = routes.try_next().await? {
        if route.header.destination_prefix_length == 0 && gateway.is_none() {
            gateway = route.attributes.iter().find_map(|a| match a {
                RouteAttribute::Gateway(RouteAddress::Inet(ip)) => Some(*ip),
                _ => None,
            });
        }
    }
    Ok((found.into_iter().map(|(_, interface)| interface).collect(), gateway))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_ports_are_read_from_proc() {
        let listen = "   0: 00000000:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0";
        let open = "   1: 0100007F:192B 0100007F:A0B2 01 00000000:00000000 00:00000000 00000000     0";
        assert_eq!(listening_port(listen), Some(6443));
        assert_eq!(listening_port(open), None);
        assert_eq!(listening_port("  sl  local_address rem_address   st tx_queue"), None);
    }

    /// The kubelet's package leaves one of the first kind there.
    #[test]
    fn a_hidden_file_among_the_manifests_is_no_trace_of_kubeadm() {
        let host = crate::host::fake::Fake::new();
        host.put("/etc/kubernetes/manifests/.kubelet-keep", "");
        assert!(!Facts::gather_files(&host).kubeadm_began);
        host.put("/etc/kubernetes/manifests/etcd.yaml", "kind: Pod\n");
        assert!(Facts::gather_files(&host).kubeadm_began);
    }

    #[test]
    fn containerd_versions_of_debian_and_upstream_are_read() {
        assert_eq!(
            containerd_version("containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6"),
            Some((1, 7))
        );
        assert_eq!(
            containerd_version("containerd github.com/containerd/containerd/v2 v2.1.0 abc"),
            Some((2, 1))
        );
        assert_eq!(containerd_version("nothing"), None);
    }

    #[test]
    fn the_loopback_interface_is_found_by_netlink() {
        let (interfaces, _) = network().expect("netlink works without privileges");
        let lo = interfaces.iter().find(|i| i.name == "lo").expect("every network namespace has lo");
        assert!(lo.mac.is_some());
    }
}
