//! `[vsphere]` and `[libvirt]`: where a cluster's VMs go and how large they are. Whole tables and every key
//! may be left out: govc's own environment says what `[vsphere]` does not, and libvirt has usual names.

use crate::input::Section;

/// How large each VM is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub cpus: u32,
    pub memory_mb: u32,
    pub disk_gb: u32,
}

impl Default for Size {
    fn default() -> Self {
        Self { cpus: 2, memory_mb: 4096, disk_gb: SMALLEST_DISK_GB }
    }
}

/// The image's virtual size: a disk can be grown, and never shrunk.
pub const SMALLEST_DISK_GB: u32 = 20;

/// Names of a vSphere inventory, as govc takes them: a name, or an inventory path.
#[derive(Debug, Clone, Default)]
pub struct Vsphere {
    pub datacenter: Option<String>,
    pub datastore: Option<String>,
    pub folder: Option<String>,
    pub resource_pool: Option<String>,
    pub network: Option<String>,
    pub size: Size,
}

#[derive(Debug, Clone)]
pub struct Libvirt {
    pub link: Link,
    /// Folder of the host in which the disks lie.
    pub folder: String,
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

impl Default for Libvirt {
    fn default() -> Self {
        Self {
            link: Link::Network("default".into()),
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
    if !(2..=768).contains(&cpus) {
        s.error("cpus", format!("{cpus} is not from 2 to 768: kubeadm asks for 2"), "write 2 or more");
    }
    // The kernel keeps some of it to itself, and kubeadm asks for 1700 MB of what is left.
    if memory_mb < 2048 || !memory_mb.is_multiple_of(4) {
        s.error(
            "memory_mb",
            format!("{memory_mb} is less than 2048, or no multiple of 4: a control plane needs so much"),
            "write mebibytes, as in 4096",
        );
    }
    if !(SMALLEST_DISK_GB..=63488).contains(&disk_gb) {
        s.error(
            "disk_gb",
            format!("{disk_gb} is not from {SMALLEST_DISK_GB}, the image's own size, to 63488"),
            format!("write gibibytes, {SMALLEST_DISK_GB} or more"),
        );
    }
    Size { cpus, memory_mb, disk_gb }
}
