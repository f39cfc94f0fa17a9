//! What lies outside of the machine: the API, etcd's members, the other control planes' agents.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Fake, FakeDns};
use crate::host::Host;
use crate::kube::{KubeError, Method, Request, Server};
use crate::role::components::etcd_minor;
use crate::role::types::KubernetesVersion;
use crate::room::{self, Peer};

#[derive(Debug, Clone, Default)]
pub struct ClusterState {
    /// etcd members as (name, peer URL); a member that was announced and not started has no name.
    pub members: Vec<(String, String)>,
    /// The peer URL of a member that has no vote yet.
    pub learner: Option<String>,
    /// The cluster's version; this machine's, if it is not set.
    pub kubernetes: Option<KubernetesVersion>,
    /// This machine's Node has the label and the taint of a control plane.
    pub is_marked: bool,
    /// The Node of a machine of this name that is not there any more.
    pub has_old_node: bool,
    /// The address of an API server that is of another cluster.
    pub foreign: Option<Ipv4Addr>,
    /// How often etcd still refuses to remove a member.
    pub refuses_removal: u32,
    /// When a Lease was written.
    pub lease_written: Vec<Duration>,
    /// The address of an API server that does not answer, whatever the others do.
    pub away: Option<Ipv4Addr>,
    /// The cluster does not know the seed's bootstrap token.
    pub token_is_unknown: bool,
    /// How often the API server answers before `kubeadm init` has made the tokens, and `cluster-info` after them.
    pub until_tokens: u32,
    /// The list that load balancers read; `None` before anybody made it.
    pub published: Option<BTreeMap<String, String>>,
    /// Labels and annotations that were written on this machine's Node.
    pub node_says: BTreeMap<String, Value>,
    /// The ClusterRoleBindings that were made.
    pub bindings: BTreeSet<String>,
    /// No Node is Ready, as nobody brought a pod network.
    pub lacks_network: bool,
    /// `None` before anybody asked for it, or made it.
    pub dns: Option<FakeDns>,
    leases: BTreeMap<String, Value>,
    version: u64,
}

impl ClusterState {
    /// Somebody else holds this Lease, and does not renew it any more.
    pub fn hold_lease(&mut self, name: &str, holder: &str) {
        self.version += 1;
        let version = self.version.to_string();
        let lease = json!({ "metadata": { "name": name, "resourceVersion": version }, "spec": { "holderIdentity": holder } });
        self.leases.insert(name.to_owned(), lease);
    }

    pub fn lease_holder(&self, name: &str) -> Option<&str> {
        self.leases.get(name)?["spec"]["holderIdentity"].as_str()
    }
}

impl Fake {
    pub(super) fn answer(&self, server: &Server, request: &Request<'_>) -> Result<String, KubeError> {
        let unreachable = || KubeError::Unreachable {
            address: server.address,
            reason: "connection refused".into(),
            timed_out: false,
        };
        let status = |status| KubeError::Status {
            address: server.address,
            status,
            path: request.path.into(),
            message: "no".into(),
        };
        let is_own = self.own_address().is_some_and(|own| own == server.address.ip().to_string());
        if server.address.port() == room::PORT {
            return match self.peers_say.get() {
                Peer::Fresh => Ok(room::FRESH.into()),
                Peer::Member => Ok(room::MEMBER.into()),
                Peer::Silent => Err(unreachable()),
            };
        }
        let is_etcd = matches!(server.address.port(), 2379 | 2380);
        // Of an external one.
        let asked_as_client = server.address.port() == 2379;
        if is_etcd
            && (asked_as_client && matches!(request.path, "/health" | "/version")
                || self.etcd_members.borrow().is_some())
        {
            return self.etcd(server, request.path);
        }
        if is_etcd {
            if !(if is_own { self.etcd_runs() } else { self.cluster_is_up.get() }) {
                return Err(unreachable());
            }
            return match request.path {
                "/members" => Ok(self.member_list()),
                "/version" => {
                    let version = self.cluster.borrow().kubernetes.unwrap_or(self.kubeadm_version());
                    Ok(json!({ "etcdserver": format!("3.{}.0", etcd_minor(version)) }).to_string())
                }
                // As etcd does once it was started anew meanwhile.
                _ if !self.has_quorum() => Err(unreachable()),
                "/v3/cluster/member/remove" if self.refuses_removal() => Err(status(503)),
                "/v3/cluster/member/remove" => {
                    let id = request.body.and_then(|b| b["ID"].as_str()?.parse::<usize>().ok()).unwrap_or(0);
                    let mut cluster = self.cluster.borrow_mut();
                    let (_, url) = cluster.members.remove(id);
                    cluster.learner = cluster.learner.take().filter(|learner| *learner != url);
                    Ok("{}".into())
                }
                "/v3/cluster/member/promote" => {
                    self.cluster.borrow_mut().learner = None;
                    Ok("{}".into())
                }
                _ if is_own && self.own_is_learner() => Err(status(501)),
                _ => Ok("{}".into()),
            };
        }
        let has = |path: &str| self.disk.borrow().files.contains_key(Path::new(path));
        let kubelet = self.kubelet_runs();
        let own_api = kubelet
            && has("/etc/kubernetes/manifests/kube-apiserver.yaml")
            && (self.is_external() || self.etcd_runs());
        let away = self.cluster.borrow().away.is_some_and(|ip| server.address.ip() == ip);
        if away || !(own_api || (self.cluster_is_up.get() && !is_own)) || !self.has_quorum() {
            return Err(unreachable());
        }
        let name = self.hostname();
        if let Some(answer) = self.answer_dns(request) {
            return answer.map_err(status);
        }
        match request.path {
            "/api/v1/namespaces/kube-system" => {
                let foreign = self.cluster.borrow().foreign.is_some_and(|ip| server.address.ip() == ip);
                let uid = if foreign { "5c0f" } else { "1d2e" };
                Ok(json!({ "metadata": { "uid": uid } }).to_string())
            }
            path if path.ends_with("/kubeadm-config") && self.cluster.borrow().until_tokens > 0 => {
                Err(status(401))
            }
            path if path.ends_with("/kubeadm-config") && self.cluster.borrow().token_is_unknown => {
                Err(status(401))
            }
            path if path.ends_with("/cluster-info") && self.cluster.borrow().until_tokens > 0 => {
                self.cluster.borrow_mut().until_tokens -= 1;
                Err(status(404))
            }
            path if path.ends_with("/kubeadm-config") => {
                let version = self.cluster.borrow().kubernetes.unwrap_or(self.kubeadm_version());
                let text = format!("kind: ClusterConfiguration\nkubernetesVersion: {version}\n");
                Ok(json!({ "data": { "ClusterConfiguration": text } }).to_string())
            }
            path if path.starts_with("/api/v1/nodes/") => {
                let registered = self.is_registered();
                if request.method == Method::Delete {
                    self.cluster.borrow_mut().has_old_node = false;
                } else if !registered && !self.cluster.borrow().has_old_node {
                    return Err(status(404));
                }
                let lacks_network = self.cluster.borrow().lacks_network;
                let said = &mut self.cluster.borrow_mut().node_says;
                for kind in ["labels", "annotations"] {
                    for (key, value) in
                        request.body.and_then(|b| b["metadata"][kind].as_object()).into_iter().flatten()
                    {
                        said.insert(format!("{kind} {key}"), value.clone());
                    }
                }
                let of = |kind: &str| -> Value {
                    let own = said.iter().filter_map(|(key, value)| Some((key.strip_prefix(kind)?, value)));
                    own.map(|(key, value)| (key.trim().to_owned(), value.clone()))
                        .collect::<serde_json::Map<_, _>>()
                        .into()
                };
                let ready = match registered {
                    true if lacks_network => "False",
                    true => "True",
                    false => "Unknown",
                };
                Ok(json!({
                    "metadata": { "name": name, "labels": of("labels "), "annotations": of("annotations ") },
                    "status": { "conditions": [{ "type": "Ready", "status": ready, "message": "cni: no network" }] },
                })
                .to_string())
            }
            // The mirror of a static pod.
            path if path.starts_with("/api/v1/namespaces/kube-system/pods/") => {
                let pod = path.rsplit('/').next().unwrap_or_default().trim_end_matches(&format!("-{name}"));
                if !has(&format!("/etc/kubernetes/manifests/{pod}.yaml")) {
                    return Err(status(404));
                }
                Ok(json!({
                    "status": {
                        "phase": "Running",
                        "conditions": [{ "type": "Ready", "status": "True" }],
                        "containerStatuses": [{
                            "containerID": format!("containerd://{}", self.container_id(pod)),
                            "state": { "running": { "startedAt": "2030-01-01T00:00:00Z" } },
                        }],
                    },
                })
                .to_string())
            }
            path if path.contains("/clusterrolebindings") => {
                let bindings = &mut self.cluster.borrow_mut().bindings;
                let name = request.body.and_then(|body| body["metadata"]["name"].as_str());
                let is_there = match name {
                    Some(name) => bindings.insert(name.to_owned()),
                    None => path.rsplit('/').next().is_some_and(|name| bindings.contains(name)),
                };
                if is_there { Ok("{}".into()) } else { Err(status(if name.is_some() { 409 } else { 404 })) }
            }
            path if path.contains("/kube-node-lease/") => {
                let node = path.rsplit('/').next().unwrap_or_default();
                let dark = self.cluster.borrow().dns.as_ref().is_some_and(|dns| dns.dark.contains(node));
                let year = if dark { 1970 } else { 2030 };
                Ok(format!(r#"{{"spec":{{"renewTime":"{year}-01-01T00:00:00.000000Z"}}}}"#))
            }
            path if path.contains("kindling-endpoints") || path.ends_with("/kube-public/configmaps") => {
                self.publish(request).ok_or_else(|| status(404))
            }
            path if path.contains("/leases") => self
                .lease(request)
                .ok_or_else(|| status(if request.method == Method::Get { 404 } else { 409 })),
            _ => Ok(r#"{"items":[]}"#.into()),
        }
    }

    fn own_is_learner(&self) -> bool {
        self.cluster.borrow().learner.as_ref() == Some(&self.own_peer_url())
    }

    fn refuses_removal(&self) -> bool {
        let left = &mut self.cluster.borrow_mut().refuses_removal;
        *left = left.saturating_sub(1);
        *left > 0
    }

    /// The published list: read, made, or patched; `None` where it is not there.
    fn publish(&self, request: &Request<'_>) -> Option<String> {
        let list = &mut self.cluster.borrow_mut().published;
        match (request.method, request.body) {
            (Method::Post, _) => *list = Some(list.take().unwrap_or_default()),
            (Method::Patch, Some(body)) => {
                let list = list.as_mut()?;
                for (name, address) in body["data"].as_object().into_iter().flatten() {
                    match address.as_str() {
                        Some(address) => list.insert(name.clone(), address.to_owned()),
                        None => list.remove(name),
                    };
                }
            }
            _ => {}
        }
        Some(json!({ "data": list.as_ref()? }).to_string())
    }

    pub(super) fn member_list(&self) -> String {
        let members = self.cluster.borrow().members.clone();
        let members: Vec<Value> = members
            .iter()
            .enumerate()
            .map(|(id, (name, url))| {
                let clients: &[&str] = if name.is_empty() { &[] } else { &["https://client:2379"] };
                let learner = self.cluster.borrow().learner.as_ref() == Some(url);
                json!({ "id": id, "name": name, "peerURLs": [url], "clientURLs": clients, "isLearner": learner })
            })
            .collect();
        Value::from(members).to_string()
    }

    /// Reads or writes a Lease, with the API's check of the version; `None` is its refusal.
    pub(super) fn lease(&self, request: &Request<'_>) -> Option<String> {
        let cluster = &mut *self.cluster.borrow_mut();
        let name = match request.body {
            Some(body) => body["metadata"]["name"].as_str()?.to_owned(),
            None => request.path.rsplit('/').next()?.to_owned(),
        };
        let Some(body) = request.body else { return cluster.leases.get(&name).map(Value::to_string) };
        let known = cluster.leases.get(&name);
        if known.map(|k| &k["metadata"]["resourceVersion"]) != body["metadata"].get("resourceVersion") {
            return None;
        }
        cluster.version += 1;
        cluster.lease_written.push(self.clock.get());
        let mut body = body.clone();
        body["metadata"]["resourceVersion"] = cluster.version.to_string().into();
        cluster.leases.insert(name, body.clone());
        Some(body.to_string())
    }

    /// etcd begins its log at once, and becomes known to the others.
    pub(super) fn start_etcd(&self) {
        self.put("/var/lib/etcd/member/snap/db", "");
        self.put("/var/lib/etcd/member/wal/0.wal", "");
        for member in self.etcd_members.borrow_mut().iter_mut().flatten() {
            if member["clientURLs"].as_array().is_none_or(Vec::is_empty) {
                member["name"] = "this".into();
                member["clientURLs"] = serde_json::json!(["https://this:2379"]);
            }
        }
    }

    pub(super) fn etcd(&self, server: &Server, path: &str) -> Result<String, KubeError> {
        let refused = || KubeError::Unreachable {
            address: server.address,
            reason: "connection refused".into(),
            timed_out: false,
        };
        match path {
            _ if self.dead.get() => Err(refused()),
            "/members" => match &*self.etcd_members.borrow() {
                Some(list) => Ok(serde_json::Value::from(list.clone()).to_string()),
                None => Err(refused()),
            },
            _ if self.etcd_is_up.get() || self.active.borrow().contains_key("etcd.service") => {
                Ok(match path {
                    "/version" => json!({ "etcdserver": self.etcd_version.borrow().as_str() }).to_string(),
                    _ => r#"{"health":"true"}"#.into(),
                })
            }
            _ => Err(refused()),
        }
    }

    pub(super) fn etcdctl(&self, args: &[String]) -> Result<String, String> {
        let mut members = self.etcd_members.borrow_mut();
        let list = members.as_mut().ok_or("context deadline exceeded")?;
        let verb = args.iter().position(|arg| arg == "member").map(|n| &args[n + 1..]);
        match verb {
            Some([verb, id]) if verb == "remove" => {
                let id = u64::from_str_radix(id, 16).map_err(|e| e.to_string())?;
                list.retain(|member| member["id"] != id);
            }
            Some([verb, _, url]) if verb == "add" => {
                let url = url.strip_prefix("--peer-urls=").ok_or("no URL")?;
                list.push(serde_json::json!({ "id": 99, "name": "", "peerURLs": [url], "clientURLs": [] }));
            }
            _ => return Err("the fake knows no such etcdctl".into()),
        }
        Ok(String::new())
    }
}
