//! Cluster DNS: what kubeadm makes of CoreDNS, and where its pods are.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Fake;
use crate::dns::{COREFILE, DEPLOYMENT, PODS, SLICES, has_upstream};
use crate::host::Host;
use crate::kube::{Method, Request};

#[derive(Debug, Clone)]
pub struct FakeDns {
    pub corefile: String,
    /// Each pod by its name, and the Node that it is on.
    pub pods: Vec<(String, String)>,
    /// Why no pod is ready.
    pub trouble: Option<String>,
    pub has_deployment: bool,
    /// The machines of the pods know a DNS server, whatever this one does.
    pub has_upstream: bool,
    /// What kubeadm's ConfigMap says.
    pub is_disabled: bool,
    /// The scheduler places each pod where the last one was.
    pub sticks: bool,
    /// A PodDisruptionBudget lets none go.
    pub has_budget: bool,
    /// How many pods there were so far.
    pub made: usize,
    /// Of the ConfigMap.
    pub version: u64,
    /// Nodes without power, of whose pods the API says what was true before.
    pub dark: BTreeSet<String>,
    /// How often the Service leads to no pod yet when somebody asks.
    pub unled: u32,
}

/// What all pods have here.
const ADDRESS: &str = "10.244.0.2";

/// As kubeadm writes it.
const MADE: &str = ".:53 {
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       ttl 30
    }
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30
    loop
    reload
}
";

impl FakeDns {
    /// Both pods are on the machine that was there first.
    pub fn on(node: &str) -> Self {
        Self {
            corefile: MADE.into(),
            pods: ["coredns-1", "coredns-2"].map(|name| (name.to_owned(), node.to_owned())).into(),
            trouble: None,
            has_deployment: true,
            has_upstream: false,
            is_disabled: false,
            sticks: false,
            has_budget: false,
            made: 2,
            version: 1,
            dark: BTreeSet::new(),
            unled: 0,
        }
    }

    fn config_map(&self) -> String {
        json!({ "metadata": { "resourceVersion": self.version.to_string() }, "data": { "Corefile": self.corefile } })
            .to_string()
    }
}

impl Fake {
    /// kubeadm's add-on phase.
    pub(super) fn make_dns(&self) {
        let own = self.hostname();
        self.cluster.borrow_mut().dns.get_or_insert_with(|| FakeDns::on(&own));
    }

    fn nodes(&self, dns: &FakeDns) -> Vec<String> {
        let mut names: BTreeSet<String> = dns.pods.iter().map(|(_, node)| node.clone()).collect();
        names.extend(self.cluster.borrow().members.iter().map(|(name, _)| name.clone()));
        names.extend(self.is_registered().then(|| self.hostname()));
        names.retain(|name| !name.is_empty());
        names.into_iter().collect()
    }

    /// Of all that concerns cluster DNS; the status of a refusal.
    pub(super) fn answer_dns(&self, request: &Request<'_>) -> Option<Result<String, u16>> {
        let mut dns = self.cluster.borrow().dns.clone().unwrap_or_else(|| FakeDns::on("cp1"));
        let evicted = request
            .path
            .strip_prefix("/api/v1/namespaces/kube-system/pods/")
            .and_then(|path| path.strip_suffix("/eviction"));
        let lacks_network = self.cluster.borrow().lacks_network;
        let answer = match (request.method, request.path, evicted) {
            (_, DEPLOYMENT, _) if !dns.has_deployment => Err(404),
            (_, DEPLOYMENT, _) => Ok(json!({ "spec": { "replicas": 2 } }).to_string()),
            (_, SLICES, _) => {
                let ready = dns.unled == 0;
                dns.unled = dns.unled.saturating_sub(1);
                let endpoint = json!({ "addresses": [ADDRESS], "conditions": { "ready": ready } });
                Ok(json!({ "items": [{ "endpoints": [endpoint] }] }).to_string())
            }
            (_, PODS, _) => Ok(self.dns_pods(&dns).to_string()),
            (_, "/api/v1/nodes", _) => Ok(json!({ "items": self.nodes(&dns).iter().map(|name| json!({
                "metadata": { "name": name },
                "status": { "conditions": [{ "type": "Ready", "status": if lacks_network { "False" } else { "True" } }] },
            })).collect::<Vec<_>>() })
            .to_string()),
            (_, path, _) if path.ends_with("/kubeadm-config") && dns.is_disabled => Ok(
                json!({ "data": { "ClusterConfiguration": "dns:\n  disabled: true\nkind: x\n" } }).to_string(),
            ),
            (Method::Patch, COREFILE, _) => {
                let body = request.body.cloned().unwrap_or_default();
                if body["metadata"]["resourceVersion"] != dns.version.to_string().as_str() {
                    return Some(Err(409));
                }
                dns.corefile = body["data"]["Corefile"].as_str().unwrap_or_default().to_owned();
                dns.version += 1;
                Ok(dns.config_map())
            }
            (_, COREFILE, _) => Ok(dns.config_map()),
            (_, _, Some(_)) if dns.has_budget => Err(429),
            (_, _, Some(name)) => {
                let place = dns.pods.iter().position(|(pod, _)| pod == name);
                match place.map(|place| dns.pods.remove(place)) {
                    None => Err(404),
                    Some((_, node)) => {
                        let free = self.nodes(&dns).into_iter().find(|name| *name != node);
                        let next = free.filter(|_| !dns.sticks).unwrap_or(node);
                        dns.made += 1;
                        dns.pods.push((format!("coredns-{}", dns.made), next));
                        Ok("{}".into())
                    }
                }
            }
            _ => return None,
        };
        self.cluster.borrow_mut().dns = Some(dns);
        Some(answer)
    }

    fn dns_pods(&self, dns: &FakeDns) -> Value {
        let config = self.text("/var/lib/kubelet/config.yaml").unwrap_or_default();
        let named = config.lines().find_map(|line| line.strip_prefix("resolvConf: "));
        let resolv_conf = self.text(named.unwrap_or("/etc/resolv.conf")).unwrap_or_default();
        let upstream = dns.has_upstream || has_upstream(&resolv_conf);
        let ends = dns.corefile.contains("forward . /etc/resolv.conf") && !upstream;
        let trouble = dns.trouble.clone().or_else(|| ends.then(|| "CrashLoopBackOff".into()));
        let state = match &trouble {
            Some(reason) => json!({ "waiting": { "reason": reason } }),
            None => json!({ "running": { "startedAt": "2030-01-01T00:00:00Z" } }),
        };
        let ready = trouble.is_none();
        let pod = |(name, node): &(String, String)| {
            json!({
                "metadata": { "name": name, "uid": name },
                "spec": {
                    "nodeName": node,
                    "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [] } },
                },
                "status": {
                    "phase": if ready { "Running" } else { "Pending" },
                    "podIP": ADDRESS,
                    "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
                    "containerStatuses": [{ "ready": ready, "state": state }],
                },
            })
        };
        json!({ "items": dns.pods.iter().map(pod).collect::<Vec<_>>() })
    }
}
