//! Preflight: everything that speaks against going on, found before anything is changed, in one report.

use crate::facts::Facts;
use crate::role::etcd_version::oldest_etcd;
use crate::role::types::{DnsName, KubernetesVersion};
use crate::role::{Kubernetes, NodeSpec, OLDEST_KUBERNETES, Role};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub message: String,
    pub remedy: String,
    pub weight: Weight,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Told, and passed over.
    Warning,
    /// May go away by itself.
    Passing,
    /// Somebody must change something.
    Lasting,
}

/// The first kubelet that refuses cgroup v1 by default (`failCgroupV1`).
const REFUSES_CGROUP_V1: KubernetesVersion = KubernetesVersion { major: 1, minor: 35, patch: 0 };

/// Percent of the disk, `imagefs.available`.
const IMAGES_NEED: u8 = 15;
/// kubeadm's own minimum for a control plane
/// (<https://kubernetes.io/docs/setup/production-environment/tools/kubeadm/install-kubeadm/>).
const CONTROL_PLANE_CPUS: usize = 2;
const CONTROL_PLANE_MEMORY_MB: u64 = 1700;

pub fn check(spec: &NodeSpec, facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    machine(spec, facts, &mut found);
    if let Some(kubernetes) = spec.kubernetes() {
        let founds = spec.control_plane().is_some_and(|cp| cp.first);
        software(kubernetes, founds, facts, &mut found);
    }
    if let Role::Etcd(role) = &spec.role {
        etcd(role.kubernetes, facts, &mut found);
    }
    ports(spec, facts, &mut found);
    found
}

fn add(found: &mut Vec<Finding>, weight: Weight, message: impl Into<String>, remedy: impl Into<String>) {
    found.push(Finding { message: message.into(), remedy: remedy.into(), weight });
}

fn machine(spec: &NodeSpec, facts: &Facts, found: &mut Vec<Finding>) {
    use Weight::*;
    if facts.interface_of(spec.address()).is_none() {
        let have: Vec<String> = facts
            .interfaces
            .iter()
            .filter(|i| i.name != "lo")
            .map(|i| {
                let mac = i.mac.map(|m| m.to_string()).unwrap_or_default();
                let addresses = i.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
                format!(
                    "{} ({mac}): {}",
                    i.name,
                    if addresses.is_empty() { "no address" } else { &addresses }
                )
            })
            .collect();
        add(
            found,
            Passing,
            format!("no interface has this node's address {}; there is {}", spec.address(), have.join(", ")),
            "the seed's network-config matches by MAC address (or by interface name): compare it with the VM's",
        );
    }
    let machine_id = facts.machine_id.as_deref().unwrap_or("");
    if machine_id.len() != 32 || !machine_id.bytes().all(|b| b.is_ascii_hexdigit()) {
        add(
            found,
            Lasting,
            "/etc/machine-id is empty or not set",
            "boot the image unchanged: systemd makes a fresh one at the first boot (machine-id(5))",
        );
    }
    for firewall in &facts.firewalls {
        add(
            found,
            Lasting,
            format!("{firewall} is on and would block the cluster's traffic"),
            "turn it off: it is not seen what it lets in, and what guards the cluster's network lies in front of its machines",
        );
    }
    if matches!(spec.role, Role::ControlPlane(_)) {
        if facts.cpus < CONTROL_PLANE_CPUS {
            add(
                found,
                Lasting,
                format!("{} CPU: a control plane needs {CONTROL_PLANE_CPUS}", facts.cpus),
                "give the VM more CPUs",
            );
        }
        if facts.memory_mb < CONTROL_PLANE_MEMORY_MB {
            add(
                found,
                Lasting,
                format!("{} MiB of memory: a control plane needs {CONTROL_PLANE_MEMORY_MB}", facts.memory_mb),
                "give the VM more memory",
            );
        }
    }
    if let Some(container) = &facts.container {
        if spec.kubernetes().is_some() && !facts.swap.is_empty() {
            add(
                found,
                Warning,
                format!(
                    "the host swaps to {}: in a {container} container that is the host's to turn off",
                    facts.swap.join(", ")
                ),
                "swapoff -a on the host",
            );
        }
        for module in crate::render::modules(spec) {
            if !facts.modules.contains(module) {
                add(
                    found,
                    Lasting,
                    format!(
                        "the kernel module {module} is not loaded, and a {container} container cannot load it"
                    ),
                    format!("modprobe {module} on the host"),
                );
            }
        }
    }
}

/// `founds`: whether this machine may make the cluster.
fn software(kubernetes: &Kubernetes, founds: bool, facts: &Facts, found: &mut Vec<Finding>) {
    use Weight::*;
    match facts.kubeadm {
        None => add(
            found,
            Lasting,
            "this image has no kubeadm that runs",
            "bake the image with KUBERNETES=apt or KUBERNETES=dir",
        ),
        Some(kubeadm) if kubeadm < OLDEST_KUBERNETES => add(
            found,
            Lasting,
            format!(
                "this image's kubeadm is {kubeadm}: older than {OLDEST_KUBERNETES}, the oldest that is supported"
            ),
            "bake the image with a newer Kubernetes",
        ),
        // The image was updated, or the machine went back to the one before: the cluster is of the role file's version until
        // an upgrade writes another one there, and nothing here joins or writes manifests.
        Some(kubeadm)
            if facts.joined
                && kubeadm.major == kubernetes.version.major
                && kubeadm.minor.abs_diff(kubernetes.version.minor) == 1 =>
        {
            let (remark, remedy) = if kubeadm > kubernetes.version {
                (
                    "its kubelet is newer than the API servers may be, and pods may fail on it",
                    "upgrade the control planes with `kubeadm upgrade`, then write the new version in cluster.toml; or boot the image of before",
                )
            } else {
                (
                    "its kubelet goes with the newer API servers, and its kubeadm must not write manifests",
                    "boot an image with the cluster's version when there is one",
                )
            };
            add(
                found,
                Warning,
                format!(
                    "this image has Kubernetes {kubeadm}, the cluster's is {}: {remark}",
                    kubernetes.version
                ),
                remedy,
            );
        }
        Some(kubeadm)
            if (kubeadm.major, kubeadm.minor) != (kubernetes.version.major, kubernetes.version.minor) =>
        {
            add(
                found,
                Lasting,
                format!(
                    "this image has kubeadm {kubeadm}, the cluster file says Kubernetes {}",
                    kubernetes.version
                ),
                format!(
                    "write `kubernetes = \"{kubeadm}\"` in cluster.toml and render again, or bake the image with {}",
                    kubernetes.version
                ),
            )
        }
        // Of a cluster that is there, the others' manifests say which patch runs.
        Some(kubeadm) if founds && !facts.joined && kubeadm != kubernetes.version => add(
            found,
            Warning,
            format!(
                "this image has kubeadm {kubeadm}, the cluster file says Kubernetes {0}: a new cluster is of {0}, and its images are pulled where they are not baked in",
                kubernetes.version
            ),
            format!(
                "write `kubernetes = \"{kubeadm}\"` in cluster.toml and render again before the first boot"
            ),
        ),
        Some(_) => {}
    }
    // The kubelet's own defaults (https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/).
    // In a system container they are others, see render/kubeadm.rs.
    if let Some(free) = facts.disk_free.filter(|free| facts.container.is_none() && *free < IMAGES_NEED) {
        add(
            found,
            Warning,
            format!(
                "only {free} % of the disk is free: the kubelet removes images below {IMAGES_NEED} % and pods below 10 %"
            ),
            "give the machine a larger disk, or free space on it",
        );
    }
    if let Some((message, remedy)) = crate::runtime::lacking(kubernetes, facts) {
        add(found, Lasting, message, remedy);
    }
    // That of the image: a node that was updated has a newer one than its role file says.
    let kubelet = facts.kubeadm.unwrap_or(kubernetes.version);
    if facts.cgroup_v1 {
        if let Some(container) = &facts.container {
            // The kubelet is told to run all the same (`failCgroupV1`).
            add(
                found,
                Warning,
                format!("the host runs cgroup v1: in a {container} container that is the host's to change"),
                "boot the host with systemd.unified_cgroup_hierarchy=1",
            );
        } else if kubelet >= REFUSES_CGROUP_V1 {
            add(
                found,
                Lasting,
                format!("the machine runs cgroup v1, which kubelet {kubelet} refuses"),
                "boot with systemd.unified_cgroup_hierarchy=1",
            );
        } else {
            add(
                found,
                Warning,
                "the machine runs cgroup v1: kubelets from v1.35 on refuse it",
                "boot with systemd.unified_cgroup_hierarchy=1 before you upgrade",
            );
        }
    }
    for addon in &kubernetes.addons {
        if !facts.addons.contains(addon) {
            let have = if facts.addons.is_empty() { "none".to_owned() } else { facts.addons.join(", ") };
            add(
                found,
                Lasting,
                format!("this image has no add-on `{addon}`; it has: {have}"),
                "name one of these in `addons`, or bake NAME.yaml into /usr/share/kindling/addons",
            );
        }
    }
}

fn etcd(kubernetes: KubernetesVersion, facts: &Facts, found: &mut Vec<Finding>) {
    let oldest = oldest_etcd(kubernetes);
    let remedy = "bake the image with the container image of etcd that kubeadm names among IMAGES=, or with etcd and etcdctl in bin/ of the Kubernetes folder";
    match facts.etcd {
        None => add(found, Weight::Lasting, "this image has no etcd, or no etcdctl, that runs", remedy),
        Some(version) if version < oldest => add(
            found,
            Weight::Lasting,
            format!(
                "this image has etcd {version}: kubeadm {kubernetes} takes an external etcd from {oldest} on"
            ),
            remedy,
        ),
        Some(_) => {}
    }
}

/// The ports that this node listens on (<https://kubernetes.io/docs/reference/networking/ports-and-protocols/>).
fn listens(spec: &NodeSpec) -> Vec<(u16, u16, &'static str)> {
    let mut ports = Vec::new();
    match &spec.role {
        Role::Etcd(_) => ports.push((2379, 2380, "etcd")),
        Role::ControlPlane(role) => ports.extend(
            [
                (6443, 6443, "the API server"),
                (10250, 10250, "the kubelet"),
                (10257, 10257, "the controller manager"),
                (10259, 10259, "the scheduler"),
            ]
            .into_iter()
            .chain(role.etcd.is_none().then_some((2379, 2380, "etcd"))),
        ),
        Role::Worker(_) => {
            ports.extend([
                (10250, 10250, "the kubelet"),
                (10256, 10256, "kube-proxy"),
                (30000, 32767, "NodePort services"),
            ]);
        }
        Role::LoadBalancer(_) => {}
    }
    if let Some(proxy) = spec.proxy() {
        ports.extend([
            (spec.endpoint.port, spec.endpoint.port, "the proxy"),
            (proxy.stats_port, proxy.stats_port, "the proxy's own page"),
        ]);
    }
    ports
}

fn ports(spec: &NodeSpec, facts: &Facts, found: &mut Vec<Finding>) {
    // On a machine where the work has begun they are our own.
    if facts.kubeadm_began || facts.kindling_began {
        return;
    }
    for (first, last, who) in listens(spec) {
        for port in facts.listening.range(first..=last) {
            add(
                found,
                Weight::Lasting,
                format!("port {port} is in use, {who} needs it"),
                format!("`ss -tlnp sport = :{port}` shows by whom; stop it"),
            );
        }
    }
}

/// Nodes whose Node objects show the same machine id or product UUID: clones of one disk.
pub fn twins(own: &DnsName, nodes: &serde_json::Value) -> Vec<String> {
    let id = |node: &serde_json::Value, key: &str| {
        node["status"]["nodeInfo"][key].as_str().unwrap_or("").to_lowercase()
    };
    let items: Vec<&serde_json::Value> = nodes["items"].as_array().into_iter().flatten().collect();
    let Some(this) = items.iter().find(|n| n["metadata"]["name"] == own.as_str()) else { return Vec::new() };
    items
        .iter()
        .filter(|n| n["metadata"]["name"] != own.as_str())
        .filter(|n| {
            ["machineID", "systemUUID"]
                .iter()
                .any(|key| !id(n, key).is_empty() && id(n, key) == id(this, key))
        })
        .filter_map(|n| n["metadata"]["name"].as_str().map(str::to_owned))
        .collect()
}
