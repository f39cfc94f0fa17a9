//! `[vsphere]` and `[libvirt]`: where a cluster's VMs go and how large they are. Whole tables and every key
//! may be left out: govc's own environment says what `[vsphere]` does not, and libvirt has usual names.

use schemars::JsonSchema;
use serde::Serialize;

use crate::input::Section;

/// How large each VM is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(default)]
pub struct Size {
    /// Virtual CPUs of each VM. kubeadm asks for two.
    #[schemars(range(min = 2, max = MOST_CPUS), example = 4)]
    pub cpus: u32,
    /// Memory of each VM, in mebibytes.
    #[schemars(range(min = LEAST_MEMORY_MB), example = 8192, extend("multipleOf" = 4))]
    pub memory_mb: u32,
    /// The size of each VM's disk, in gibibytes: the image's own size or more.
    #[schemars(range(min = SMALLEST_DISK_GB, max = LARGEST_DISK_GB), example = 40)]
    pub disk_gb: u32,
}

impl Default for Size {
    fn default() -> Self {
        Self { cpus: 2, memory_mb: 4096, disk_gb: SMALLEST_DISK_GB }
    }
}

/// The image's virtual size: a disk can be grown, and never shrunk.
pub const SMALLEST_DISK_GB: u32 = 20;
const LARGEST_DISK_GB: u32 = 63_488;
const MOST_CPUS: u32 = 768;
/// The kernel keeps some of it to itself, and kubeadm asks for 1700 MB of what is left.
const LEAST_MEMORY_MB: u32 = 2048;
/// As [`name`] takes it: no space at an end. What cannot be printed only [`name`] refuses.
const NAME: &str = r"^\S(.*\S)?$";

/// Where `kindling render --target vsphere` puts the VMs. Names of a vSphere inventory, as govc takes them: a name, or an
/// inventory path. The table and each key may be left out.
#[derive(Debug, Clone, Default, JsonSchema)]
#[schemars(deny_unknown_fields, extend(
    "x-source" = "https://github.com/vmware/govmomi/blob/main/govc/README.md"
))]
pub struct Vsphere {
    /// The datacenter.
    #[schemars(regex(pattern = NAME), example = &"dc1", extend("x-default" = "GOVC_DATACENTER"))]
    pub datacenter: Option<String>,
    /// The datastore of the disks.
    #[schemars(regex(pattern = NAME), example = &"vsanDatastore", extend("x-default" = "GOVC_DATASTORE"))]
    pub datastore: Option<String>,
    /// The folder of the VMs; it must be there.
    #[schemars(regex(pattern = NAME), example = &"/dc1/vm/kubernetes", extend("x-default" = "GOVC_FOLDER"))]
    pub folder: Option<String>,
    /// The resource pool.
    #[schemars(regex(pattern = NAME), example = &"/dc1/host/cluster1/Resources", extend(
        "x-default" = "GOVC_RESOURCE_POOL"
    ))]
    pub resource_pool: Option<String>,
    /// The port group of the network cards.
    #[schemars(regex(pattern = NAME), example = &"VM Network", extend("x-default" = "GOVC_NETWORK"))]
    pub network: Option<String>,
    #[schemars(flatten)]
    pub size: Size,
}

/// Where `kindling render --target libvirt` puts the VMs. The table and each key may be left out.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, extend(
    "not" = { "required": ["network", "bridge"] },
    "x-source" = "https://libvirt.org/formatdomain.html"
))]
pub struct Libvirt {
    #[schemars(flatten, with = "LinkKeys")]
    pub link: Link,
    /// Folder of the host in which the disks lie.
    #[schemars(with = "Option<String>", regex(pattern = "^/"), example = &"/srv/kubernetes", extend(
        "default" = Libvirt::default().folder
    ))]
    pub folder: String,
    #[schemars(flatten)]
    pub size: Size,
}

/// What the VMs' network cards are plugged into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// A network that libvirt knows.
    Network(String),
    /// A bridge of the host.
    Bridge(String),
}

/// How the file says a [`Link`].
#[derive(JsonSchema)]
#[allow(dead_code)] // only its schema is used
struct LinkKeys {
    /// The network of libvirt that the network cards are plugged into.
    #[schemars(regex(pattern = NAME), example = &"nodes", extend("default" = DEFAULT_NETWORK))]
    network: Option<String>,
    /// A bridge of the host instead of a network of libvirt.
    #[schemars(regex(pattern = NAME), example = &"br0", extend("x-default" = "none: `network` is used"))]
    bridge: Option<String>,
}

const DEFAULT_NETWORK: &str = "default";

impl Default for Libvirt {
    fn default() -> Self {
        Self {
            link: Link::Network(DEFAULT_NETWORK.into()),
            folder: "/var/lib/libvirt/images".into(),
            size: Size::default(),
        }
    }
}

pub fn read_vsphere(mut s: Section<'_, '_>) -> Vsphere {
    let placement = Vsphere {
        datacenter: name(&mut s, "datacenter", "write the datacenter's name, as in dc1"),
        datastore: name(&mut s, "datastore", "write the datastore's name, as in vsanDatastore"),
        folder: name(&mut s, "folder", "write the VM folder's name or path, as in /dc1/vm/kubernetes"),
        resource_pool: name(
            &mut s,
            "resource_pool",
            "write the pool's name or path, as in /dc1/host/cluster1/Resources",
        ),
        network: name(&mut s, "network", "write the port group's name, as in VM Network"),
        size: read_size(&mut s),
    };
    s.finish();
    placement
}

pub fn read_libvirt(mut s: Section<'_, '_>) -> Libvirt {
    let default = Libvirt::default();
    let network = name(&mut s, "network", "write a name of `virsh net-list --all`, as in default");
    let bridge = name(&mut s, "bridge", "write a bridge of the host, as in br0");
    if network.is_some() && bridge.is_some() {
        s.error(
            "bridge",
            "a VM has one network card, and `network` says already where it is plugged in",
            "keep one of the two",
        );
    }
    let folder = name(&mut s, "folder", "write a folder of the host, as in /var/lib/libvirt/images");
    if folder.as_ref().is_some_and(|folder| !folder.starts_with('/')) {
        s.error(
            "folder",
            "is not an absolute path, and libvirt takes no other",
            "write a folder of the host, as in /var/lib/libvirt/images",
        );
    }
    let size = read_size(&mut s);
    s.finish();
    Libvirt {
        link: bridge.map(Link::Bridge).or(network.map(Link::Network)).unwrap_or(default.link),
        folder: folder.map_or(default.folder, |folder| folder.trim_end_matches('/').to_owned()),
        size,
    }
}

/// A name that is neither empty nor has characters which no inventory shows.
fn name(s: &mut Section<'_, '_>, key: &str, remedy: &str) -> Option<String> {
    let name: String = s.optional(key, remedy)?;
    if name.trim().is_empty() || name.trim() != name {
        s.error(key, "is empty, or has a space at an end", remedy);
        return None;
    }
    if name.chars().any(char::is_control) {
        s.error(key, "has characters that cannot be printed", remedy);
        return None;
    }
    Some(name)
}

fn read_size(s: &mut Section<'_, '_>) -> Size {
    let default = Size::default();
    let cpus = s.optional("cpus", "write a whole number").unwrap_or(default.cpus);
    let memory_mb = s.optional("memory_mb", "write mebibytes, as in 4096").unwrap_or(default.memory_mb);
    let disk_gb = s.optional("disk_gb", "write gibibytes, as in 40").unwrap_or(default.disk_gb);
    if !(2..=MOST_CPUS).contains(&cpus) {
        s.error(
            "cpus",
            format!("{cpus} is not from 2 to {MOST_CPUS}: kubeadm asks for 2"),
            "write 2 or more",
        );
    }
    if memory_mb < LEAST_MEMORY_MB || !memory_mb.is_multiple_of(4) {
        s.error(
            "memory_mb",
            format!("{memory_mb} is less than {LEAST_MEMORY_MB}, or no multiple of 4: a control plane needs so much"),
            "write mebibytes, as in 4096",
        );
    }
    if !(SMALLEST_DISK_GB..=LARGEST_DISK_GB).contains(&disk_gb) {
        s.error(
            "disk_gb",
            format!("{disk_gb} is not from {SMALLEST_DISK_GB}, the image's own size, to {LARGEST_DISK_GB}"),
            format!("write gibibytes, {SMALLEST_DISK_GB} or more"),
        );
    }
    Size { cpus, memory_mb, disk_gb }
}
