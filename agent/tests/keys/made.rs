//! What is made of a cluster file.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use kindling::cluster::hypervisor;
use kindling::cluster::seed::Seed;
use kindling::cluster::{Cluster, Secrets, render};
use kindling::facts::{Facts, Interface};
use kindling::input::Source;
use kindling::plan::{Action, plan};
use kindling::preflight::Weight;
use kindling::role::NodeSpec;
use kindling::role::etcd_version::EtcdVersion;
use kindling::role::types::Secret;

use crate::cluster_support::dummies;
use crate::registries::PASSWORD;
use crate::samples::Place;

/// Tables become one; anything else takes the place of what was there.
fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(into)), toml::Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

pub fn cluster_file(parts: &[&str]) -> String {
    let mut whole = toml::Table::new();
    for part in parts {
        merge(&mut whole, part.parse().unwrap_or_else(|error| panic!("{error}\n{part}")));
    }
    whole.to_string()
}

/// A machine that lacks nothing, of this version.
pub fn facts(spec: &NodeSpec, containerd: (u32, u32)) -> Facts {
    Facts {
        interfaces: vec![Interface {
            name: "eth0".into(),
            mac: None,
            up: true,
            addresses: vec![Ipv4Net::new(spec.address(), 24).expect("24 is a prefix")],
        }],
        cpus: 2,
        memory_mb: 4096,
        machine_id: Some("0123456789abcdef0123456789abcdef".into()),
        kubeadm: spec.kubernetes().map(|kubernetes| kubernetes.version),
        containerd: Some(containerd),
        docker: true,
        cri_dockerd: true,
        crio: true,
        etcd: EtcdVersion::read("3.7.0"),
        addons: vec!["flannel".into(), "marked".into()],
        ..Facts::default()
    }
}

/// All that is made of a cluster file for one machine, by place.
pub struct Made {
    pub files: BTreeMap<String, String>,
    steps: BTreeMap<&'static str, String>,
    seed: BTreeMap<&'static str, String>,
    cluster: Cluster,
    secrets: Secrets,
}

impl Made {
    pub fn new(text: &str, node: &str, containerd: (u32, u32)) -> Result<Option<Self>, String> {
        let (cluster, _) =
            Cluster::parse(Source::new("cluster.toml", text)).map_err(|report| report.to_string())?;
        let with_login = cluster.registries.iter().filter(|registry| registry.username.is_some());
        let passwords = with_login.map(|registry| (registry.host.clone(), Secret::new(PASSWORD))).collect();
        let secrets = Secrets { registries: passwords, ..dummies() };
        let Ok(node) = cluster.node(node).ok_or(()) else { return Ok(None) };
        let role = render::role_file(&cluster, &secrets, node);
        let seed = Seed::new(&cluster, node, &role);
        let (spec, _) =
            NodeSpec::parse(Source::new("role.toml", role.to_toml())).map_err(|report| report.to_string())?;
        let mut made = Self {
            files: BTreeMap::new(),
            steps: BTreeMap::new(),
            seed: BTreeMap::from([("network-config", seed.network_config)]),
            cluster: cluster.clone(),
            secrets,
        };
        for step in plan(&spec, &facts(&spec, containerd)) {
            if let Action::Preflight(findings) = &step.action
                && let Some(finding) = findings.iter().find(|finding| finding.weight != Weight::Warning)
            {
                return Err(finding.message.clone());
            }
            for file in step.files() {
                made.files.insert(file.path.display().to_string(), file.content.clone());
            }
            made.steps.insert(step.id, format!("{} {:?} {:?}", step.title, step.action, step.commands()));
        }
        Ok(Some(made))
    }

    pub fn text(&self, place: Place) -> String {
        match place {
            Place::File(path) => self.files.get(path).cloned().unwrap_or_default(),
            Place::Step(id) => self.steps.get(id).cloned().unwrap_or_default(),
            Place::Seed(name) => self.seed[name].clone(),
            Place::Render(target, path) => {
                let outputs =
                    hypervisor::outputs(&self.cluster, &self.secrets, None, target).expect("renders");
                let output = outputs.into_iter().find(|output| output.path.as_os_str() == path);
                String::from_utf8(output.expect("it is rendered").bytes).expect("text")
            }
        }
    }
}
