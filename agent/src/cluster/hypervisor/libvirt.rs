//! Domain XML (<https://libvirt.org/formatdomain.html>) for each node, to be used with the image's qcow2.

use std::fmt::Write as _;

use super::{machine, quoted, text};
use crate::cluster::placement::Link;
use crate::cluster::render::Output;
use crate::cluster::{Cluster, Node};

pub fn outputs(cluster: &Cluster, only: Option<&str>) -> Vec<Output> {
    let placement = cluster.libvirt.clone().unwrap_or_default();
    let mut settings = String::from("# Written by `kindling render --target libvirt`, read by define.sh.\n");
    let mut list = String::new();
    let mut outputs = vec![text("libvirt/define.sh", include_str!("define.sh"))];
    for node in &cluster.nodes {
        writeln!(list, "{} {}", node.name, machine(cluster, &node.name)).expect("a String takes every text");
        if only.is_none_or(|name| node.name.as_str() == name) {
            outputs.push(text(format!("libvirt/{}.xml", node.name), domain(cluster, node)));
        }
    }
    write!(
        settings,
        "folder={}\ndisk_gb={}\n# node, domain\nnodes={}\n",
        quoted(&placement.folder),
        placement.size.disk_gb,
        quoted(list.trim_end())
    )
    .expect("a String takes every text");
    outputs.push(text("libvirt/settings", settings));
    outputs
}

/// UEFI without Secure Boot, as the image's kernel is signed by nobody; virtio for all else.
fn domain(cluster: &Cluster, node: &Node) -> String {
    let placement = cluster.libvirt.clone().unwrap_or_default();
    let name = machine(cluster, &node.name);
    let disk = escaped(&format!("{}/{name}", placement.folder));
    let (kind, source) = match &placement.link {
        Link::Network(name) => ("network", format!("network='{}'", escaped(name))),
        Link::Bridge(name) => ("bridge", format!("bridge='{}'", escaped(name))),
    };
    format!(
        "<!-- Written by `kindling render`: {role} {node} of cluster {cluster}. -->
<domain type='kvm'>
  <name>{name}</name>
  <title>{role} {node} of cluster {cluster}</title>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>{cpus}</vcpu>
  <os firmware='efi'>
    <type arch='x86_64' machine='q35'>hvm</type>
    <firmware>
      <feature enabled='no' name='secure-boot'/>
    </firmware>
    <boot dev='hd'/>
  </os>
  <features>
    <acpi/>
  </features>
  <cpu mode='host-passthrough'/>
  <clock offset='utc'/>
  <on_reboot>restart</on_reboot>
  <on_crash>restart</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap'/>
      <source file='{disk}.qcow2'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{disk}-seed.img'/>
      <target dev='vdb' bus='virtio'/>
      <readonly/>
    </disk>
    <interface type='{kind}'>
      <mac address='{mac}'/>
      <source {source}/>
      <model type='virtio'/>
    </interface>
    <serial type='pty'>
      <target port='0'/>
    </serial>
    <console type='pty'>
      <target type='serial' port='0'/>
    </console>
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    <rng model='virtio'>
      <backend model='random'>/dev/urandom</backend>
    </rng>
    <memballoon model='virtio'/>
  </devices>
</domain>
",
        role = node.role,
        node = node.name,
        cluster = cluster.name,
        memory = placement.size.memory_mb,
        cpus = placement.size.cpus,
        mac = node.mac,
    )
}

/// Text for an attribute in single quotes.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&apos;")
}
