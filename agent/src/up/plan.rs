//! What is brought up: a cluster and the folders it boots from, as data that is kept in the state folder,
//! so that `down`, a power cycle and a second `up` know what the first one made.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::{DriverName, UpError, UpOptions, memory};
use crate::cluster::{API_PORT, Cluster, Node};
use crate::role::types::{HostOrAddress, MacAddress, RoleName};
use crate::suggest;

/// The name of a machine's interface where the cluster file leaves it open.
const INTERFACE: &str = "host0";

/// Of what the state folder keeps: 2 has which control plane is the first.
const VERSION: u32 = 2;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpPlan {
    pub version: u32,
    pub cluster: String,
    pub driver: DriverName,
    /// What the machines boot from: a tree, or a disk image.
    pub image: PathBuf,
    /// Changes when the image is baked anew: disks laid over the old one are worth nothing then.
    pub image_id: String,
    pub seeds: PathBuf,
    /// Changes when the seeds are rendered anew.
    pub seeds_id: String,
    pub api: Api,
    pub network: Network,
    pub disk_gb: u32,
    /// In the order of the cluster file.
    pub machines: Vec<Machine>,
}

/// Where the cluster's API answers on the private network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Api {
    pub address: Ipv4Addr,
    pub port: u16,
    /// A name that the API servers' certificates hold.
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    pub gateway: Ipv4Addr,
    pub subnet: Ipv4Net,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Position in the cluster file, for names that must be short.
    pub index: usize,
    pub name: String,
    pub role: RoleName,
    /// The control plane that the others join.
    #[serde(default)]
    pub first: bool,
    pub address: Ipv4Addr,
    pub mac: MacAddress,
    pub interface: String,
    pub cpus: u32,
    pub memory_mb: u32,
}

impl Machine {
    pub fn is_kubernetes_node(&self) -> bool {
        self.role.runs_kubelet()
    }
}

impl UpPlan {
    /// The memory of machines whose size nobody names is that of [`UpPlan::keep_memory`] or [`UpPlan::assign_memory`].
    pub fn new(cluster: &Cluster, options: &UpOptions, driver: DriverName) -> Result<Self, UpError> {
        let image = image(&options.image, driver)?;
        let seeds = fs::canonicalize(&options.seeds).map_err(|_| no_seeds(&options.seeds, "admin.conf"))?;
        let machines: Vec<Machine> = cluster
            .nodes
            .iter()
            .enumerate()
            .map(|(index, node)| machine(cluster, options, index, node))
            .collect();
        Ok(Self {
            version: VERSION,
            cluster: cluster.name.to_string(),
            driver,
            image_id: image_id(&image)?,
            image,
            seeds_id: seeds_id(&seeds, &machines)?,
            seeds,
            api: api(cluster)?,
            network: network(cluster)?,
            disk_gb: options.disk_gb,
            machines,
        })
    }

    /// See [`memory::assign`].
    pub fn assign_memory(
        &mut self,
        options: &UpOptions,
        emulated_on: Option<u64>,
    ) -> Result<Option<String>, UpError> {
        memory::assign(&mut self.machines, options, emulated_on)
    }

    /// Machines that are there keep their size where nobody names another: what is right for new ones may have changed
    /// with the host.
    pub fn keep_memory(&mut self, old: &Self, options: &UpOptions) -> Result<(), UpError> {
        self.assign_memory(options, None)?;
        for machine in &mut self.machines {
            let named = options.memory_mb.is_some()
                || machine.role != RoleName::ControlPlane && options.worker_memory_mb.is_some();
            if let (false, Ok(old)) = (named, old.machine(&machine.name)) {
                machine.memory_mb = old.memory_mb;
            }
        }
        Ok(())
    }

    pub fn machine(&self, name: &str) -> Result<&Machine, UpError> {
        self.machines.iter().find(|m| m.name == name).ok_or_else(|| {
            UpError::new(
                format!("the cluster has no machine `{name}`"),
                suggest::choose(name, self.machines.iter().map(|m| m.name.as_str())),
            )
        })
    }

    /// The first thing in which a cluster that is there differs from the one that is wanted.
    pub fn difference(&self, wanted: &Self) -> Option<&'static str> {
        let checks = [
            (self.version == wanted.version, "they were made by another version of kindling"),
            (self.driver == wanted.driver, "they run with the other driver"),
            (self.image == wanted.image, "they boot from another image"),
            (self.image_id == wanted.image_id, "the image was baked anew since they were made"),
            (self.seeds_id == wanted.seeds_id, "the seeds were rendered anew since they were made"),
            (self.machines == wanted.machines, "the nodes, their memory or their CPUs are other ones"),
            (self.disk_gb == wanted.disk_gb, "their disks have another size"),
            (self == wanted, "the cluster file was changed since they were made"),
        ];
        checks.into_iter().find(|(same, _)| !same).map(|(_, what)| what)
    }
}

fn machine(cluster: &Cluster, options: &UpOptions, index: usize, node: &Node) -> Machine {
    Machine {
        index,
        name: node.name.to_string(),
        role: node.role,
        first: node.first,
        address: node.address.ip(),
        mac: node.mac,
        interface: cluster.network.interface.clone().unwrap_or_else(|| INTERFACE.to_owned()),
        cpus: options.cpus,
        memory_mb: 0,
    }
}

fn api(cluster: &Cluster) -> Result<Api, UpError> {
    // kubeadm puts `kubernetes` into every API server's certificate, so it does where the endpoint is an
    // address: TLS towards 127.0.0.1 cannot ask for that.
    let name = match &cluster.endpoint.host {
        HostOrAddress::Name(name) => name.to_string(),
        HostOrAddress::Address(_) => "kubernetes".to_owned(),
    };
    if let Some(vip) = cluster.endpoint.vip {
        return Ok(Api { address: vip.address, port: cluster.endpoint.port, name });
    }
    let first = cluster.with_role(RoleName::ControlPlane).find(|n| n.first);
    let first = first
        .ok_or_else(|| UpError::new("the cluster has no first control plane", "mark one in cluster.toml"))?;
    Ok(Api { address: first.address.ip(), port: API_PORT, name })
}

/// One network for all: the gateway's. It exists on this machine only, so everybody must be in it.
fn network(cluster: &Cluster) -> Result<Network, UpError> {
    let gateway = cluster.network.gateway;
    let subnets = cluster.nodes.iter().map(|n| n.address.subnet());
    let subnet = subnets.into_iter().find(|s| s.contains(&gateway)).ok_or_else(|| {
        UpError::new(
            format!("the gateway {gateway} is in no node's subnet"),
            "`kindling up` makes one network, that of the gateway: give the nodes addresses in it",
        )
    })?;
    let outside: Vec<String> = cluster
        .nodes
        .iter()
        .filter(|n| !subnet.contains(&n.address.ip()))
        .map(|n| format!("{} ({})", n.name, n.address))
        .collect();
    if outside.is_empty() {
        return Ok(Network { gateway, subnet });
    }
    Err(UpError::new(
        format!("outside of {subnet}, the one network that `kindling up` makes: {}", outside.join(", ")),
        "give the nodes addresses in one subnet, or try this cluster on real machines",
    ))
}

fn image(folder: &Path, driver: DriverName) -> Result<PathBuf, UpError> {
    let (name, probe) = match driver {
        DriverName::Machines => ("tree", "tree/usr/lib/systemd/systemd"),
        DriverName::Qemu => ("kindling.qcow2", "kindling.qcow2"),
    };
    if !folder.join(probe).exists() {
        return Err(UpError::new(
            format!("there is no baked image at {}: {probe} is missing", folder.display()),
            "bake one with `make image`, or name the folder with --image",
        ));
    }
    let path = folder.join(name);
    fs::canonicalize(&path).map_err(|error| UpError::file("find", &path, &error))
}

/// Inode and time of change: baking replaces the whole file or folder.
pub fn image_id(image: &Path) -> Result<String, UpError> {
    let metadata = fs::metadata(image).map_err(|error| UpError::file("read", image, &error))?;
    // A folder's own times change with what is put beside its children; its inode says enough.
    if metadata.is_dir() {
        return Ok(format!("{}:{}", metadata.dev(), metadata.ino()));
    }
    Ok(format!("{}:{}:{}:{}", metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime()))
}

/// The seed's files that a machine boots from.
pub const SEED_FILES: [&str; 3] = ["meta-data", "network-config", "user-data"];

fn seeds_id(seeds: &Path, machines: &[Machine]) -> Result<String, UpError> {
    let mut context = Context::new(&SHA256);
    let mut missing = Vec::new();
    let files = machines.iter().flat_map(|m| SEED_FILES.map(|file| format!("{}/{file}", m.name)));
    for file in files.chain(["admin.conf".to_owned()]) {
        match fs::read(seeds.join(&file)) {
            Ok(bytes) => {
                context.update(&(bytes.len() as u64).to_be_bytes());
                context.update(&bytes);
            }
            Err(_) => missing.push(file),
        }
    }
    if !missing.is_empty() {
        return Err(no_seeds(seeds, &missing.join(", ")));
    }
    Ok(hex(&context.finish().as_ref()[..8]))
}

fn no_seeds(seeds: &Path, missing: &str) -> UpError {
    UpError::new(
        format!("the seeds in {} cannot be read: {missing}", seeds.display()),
        "make them with `kindling render`, and name the folder with --seeds",
    )
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn machine(index: usize, name: &str, role: RoleName) -> Machine {
        let last = 10 + u8::try_from(index).expect("few machines");
        Machine {
            index,
            name: name.to_owned(),
            role,
            first: false,
            address: Ipv4Addr::new(10, 0, 0, last),
            mac: MacAddress([0x52, 0x54, 0, 0, 0, last]),
            interface: "host0".into(),
            cpus: 2,
            memory_mb: 2048,
        }
    }

    fn plan(machines: Vec<Machine>) -> UpPlan {
        UpPlan {
            version: VERSION,
            cluster: "c".into(),
            driver: DriverName::Machines,
            image: "tree".into(),
            image_id: String::new(),
            seeds: "seeds".into(),
            seeds_id: String::new(),
            api: Api { address: Ipv4Addr::new(10, 0, 0, 10), port: API_PORT, name: String::new() },
            network: Network {
                gateway: Ipv4Addr::new(10, 0, 0, 1),
                subnet: "10.0.0.0/24".parse().expect("a network"),
            },
            disk_gb: 20,
            machines,
        }
    }

    fn two() -> UpPlan {
        plan(vec![machine(0, "cp1", RoleName::ControlPlane), machine(1, "worker1", RoleName::Worker)])
    }

    #[test]
    fn machines_that_are_there_keep_their_memory_unless_another_is_named() {
        let mut old = two();
        (old.machines[0].memory_mb, old.machines[1].memory_mb) = (4096, 3072);
        let mut options = UpOptions::new("c".into(), "s".into(), "i".into());
        let sizes = |options: &UpOptions| {
            let mut wanted = two();
            wanted.keep_memory(&old, options).expect("sizes");
            wanted.machines.iter().map(|m| m.memory_mb).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&options), [4096, 3072]);
        options.worker_memory_mb = Some(1500);
        assert_eq!(sizes(&options), [4096, 1500]);
        options.memory_mb = Some(2500);
        assert_eq!(sizes(&options), [2500, 1500]);
    }

    #[test]
    fn a_machine_that_is_not_there_is_told_with_the_one_that_was_meant() {
        let plan = two();
        assert_eq!(
            plan.machine("wroker1").unwrap_err().to_string(),
            "the cluster has no machine `wroker1`\n  remedy: did you mean `worker1`? choose one of cp1, worker1"
        );
    }
}
