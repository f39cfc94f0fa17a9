//! guestinfo, as cloud-init's DataSourceVMware reads it: `guestinfo.metadata` with the network inside, and
//! `guestinfo.userdata`, each with its `.encoding`
//! (<https://docs.cloud-init.io/en/latest/reference/datasources/vmware.html>).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{machine, quoted, text};
use crate::cluster::render::{self, Output, RenderError};
use crate::cluster::seed::Seed;
use crate::cluster::{Cluster, Secrets};

/// The most that open-vm-tools takes in one message (GUESTMSG_MAX_IN_SIZE), less its command and key.
const LONGEST: usize = 64 * 1024 - 128;

/// Of two encodings that cloud-init knows the plain one: keys and certificates hardly shrink.
const ENCODING: &str = "base64";

pub fn outputs(cluster: &Cluster, secrets: &Secrets, only: Option<&str>) -> Result<Vec<Output>, RenderError> {
    let mut outputs = vec![text("vsphere/deploy.sh", include_str!("deploy.sh"))];
    let mut list = String::new();
    for node in &cluster.nodes {
        let seed = Seed::new(cluster, node, &render::role_file(cluster, secrets, node));
        writeln!(list, "{} {} {} {}", node.name, machine(cluster, &node.name), node.mac, instance(&seed))
            .expect("a String takes every text");
        if only.is_some_and(|name| node.name.as_str() != name) {
            continue;
        }
        for (key, value) in [("metadata", metadata(&seed)), ("userdata", seed.user_data.expose().to_owned())]
        {
            let value = STANDARD.encode(value);
            if value.len() > LONGEST {
                return Err(RenderError::TooLong { node: node.name.clone(), key, length: value.len() });
            }
            let path = format!("vsphere/{}/guestinfo.{key}", node.name);
            outputs.push(text(path.clone() + ".encoding", ENCODING));
            outputs.push(text(path, value));
        }
    }
    outputs.push(text("vsphere/settings", settings(cluster, &list)));
    Ok(outputs)
}

/// The same digest as in the seed for other hypervisors, so that a node may change between them.
fn instance(seed: &Seed) -> &str {
    let line = seed.meta_data.lines().find_map(|line| line.strip_prefix("instance-id: "));
    line.expect("every seed has an instance-id")
}

/// There is no `network-config` here: the network is a part of the metadata.
fn metadata(seed: &Seed) -> String {
    let mut text = seed.meta_data.clone() + "network:\n";
    for line in seed.network_config.lines() {
        writeln!(text, "  {line}").expect("a String takes every text");
    }
    text
}

/// What `deploy.sh` reads. No secret is in it.
fn settings(cluster: &Cluster, nodes: &str) -> String {
    let mut text = String::from("# Written by `kindling render --target vsphere`, read by deploy.sh.\n");
    let placement = cluster.vsphere.clone().unwrap_or_default();
    let mut line = |key: &str, value: &str| {
        writeln!(text, "{key}={value}").expect("a String takes every text");
    };
    line("cluster", &quoted(cluster.name.as_str()));
    for (variable, value) in [
        ("GOVC_DATACENTER", &placement.datacenter),
        ("GOVC_DATASTORE", &placement.datastore),
        ("GOVC_FOLDER", &placement.folder),
        ("GOVC_RESOURCE_POOL", &placement.resource_pool),
        ("GOVC_NETWORK", &placement.network),
    ] {
        if let Some(value) = value {
            line(&format!("export {variable}"), &quoted(value));
        }
    }
    line("cpus", &placement.size.cpus.to_string());
    line("memory_mb", &placement.size.memory_mb.to_string());
    line("disk_gb", &placement.size.disk_gb.to_string());
    line("# node, VM, MAC address, instance-id\nnodes", &quoted(nodes.trim_end()));
    text
}
