//! Cluster DNS as the API shows it: the Deployment that kubeadm makes of CoreDNS, and its pods.

mod corefile;
mod spread;

use serde_json::Value;

use crate::kube::{KubeError, condition};
use crate::survey::pod_trouble;

pub use corefile::{has_upstream, without_upstream};
use spread::taints;
pub use spread::{Spread, spread};

pub const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/kube-system/deployments/coredns";
pub const PODS: &str = "/api/v1/namespaces/kube-system/pods?labelSelector=k8s-app%3Dkube-dns";
/// Of the Service that every pod asks.
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dkube-dns";
pub const COREFILE: &str = "/api/v1/namespaces/kube-system/configmaps/coredns";
const KUBEADM: &str = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config";

/// What to look at where cluster DNS is not available.
pub const REMEDY: &str = "`kubectl -n kube-system describe pod -l k8s-app=kube-dns` and `kubectl -n kube-system logs -l k8s-app=kube-dns` say why, `kubectl -n kube-system get pods -l component=kube-controller-manager` where they run and the Service does not lead to them; without it no pod finds a Service by its name";

/// Whether names are resolved in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dns {
    Available,
    /// kubeadm was told to make none (`dns.disabled`): there is nothing to wait for.
    Disabled,
    /// Why not.
    Unavailable(String),
}

/// What the API says of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answers {
    pub deployment: Option<Value>,
    /// kubeadm's ConfigMap; asked for only where there is no Deployment.
    pub kubeadm: Option<Value>,
    pub pods: Value,
    pub slices: Value,
    /// Asked for only where a pod has no place: the scheduler counts taints and names none.
    pub nodes: Option<Value>,
}

const NODES: &str = "/api/v1/nodes";

fn has_no_place(pod: &Value) -> bool {
    condition(pod, "PodScheduled")["status"] == "False"
}

impl Answers {
    /// `get` gives `None` for what is not there.
    pub fn ask(get: impl Fn(&str) -> Result<Option<Value>, KubeError>) -> Result<Self, KubeError> {
        let deployment = get(DEPLOYMENT)?;
        let kubeadm = if deployment.is_none() { get(KUBEADM)? } else { None };
        let pods = get(PODS)?.unwrap_or_default();
        let slices = get(SLICES)?.unwrap_or_default();
        let homeless = pods["items"].as_array().into_iter().flatten().any(has_no_place);
        let nodes = if homeless { get(NODES)? } else { None };
        Ok(Self { deployment, kubeadm, pods, slices, nodes })
    }

    /// Pods that are not about to go, nor have ended: one that a kubelet put out for want of disk stays as `Failed`, on its
    /// Node, beside the one in its place.
    pub fn pods(&self) -> impl Iterator<Item = &Value> {
        let all = self.pods["items"].as_array().into_iter().flatten();
        let ended = |pod: &Value| pod["status"]["phase"] == "Failed" || pod["status"]["phase"] == "Succeeded";
        all.filter(move |pod| pod["metadata"]["deletionTimestamp"].is_null() && !ended(pod))
    }

    pub fn ready_pods(&self) -> u64 {
        self.pods().filter(|pod| pod_trouble(pod).is_none()).count() as u64
    }

    /// How many pods there should be.
    pub fn wanted(&self) -> u64 {
        // The API puts 1 where nothing is said.
        self.deployment.as_ref().map_or(0, |deployment| deployment["spec"]["replicas"].as_u64().unwrap_or(1))
    }

    /// Whether the Service leads to this pod, under the address that it has now: a power cut gives it another one.
    fn is_led_to(&self, pod: &Value) -> bool {
        let slices = self.slices["items"].as_array().into_iter().flatten();
        let mut endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
        let address = &pod["status"]["podIP"];
        // The API: no word on its being ready is to be taken as a yes.
        let ready = |endpoint: &Value| endpoint["conditions"]["ready"] != false;
        endpoints.any(|endpoint| {
            ready(endpoint) && endpoint["addresses"].as_array().is_some_and(|list| list.contains(address))
        })
    }

    /// One pod that is ready is enough, if the Service leads to it. Not the Deployment's own condition: it calls a single
    /// pod that may be missing (`maxUnavailable: 1`) available. `counts`: whether a pod that says that it is ready is
    /// believed; after a power cut the API shows for a while what was true before.
    pub fn judge(&self, counts: impl Fn(&Value) -> bool) -> Dns {
        if self.deployment.is_none() {
            return if self.kubeadm.as_ref().is_some_and(is_disabled) {
                Dns::Disabled
            } else {
                Dns::Unavailable("there is no Deployment coredns in kube-system".into())
            };
        }
        if self.wanted() == 0 {
            return Dns::Unavailable("the Deployment coredns is scaled to 0".into());
        }
        let mut why: Vec<String> = Vec::new();
        for pod in self.pods() {
            match pod_trouble(pod) {
                None if counts(pod) && self.is_led_to(pod) => return Dns::Available,
                None if counts(pod) => why.push(
                    "its pods are ready, but the Service kube-dns does not lead to them, which kube-controller-manager sees to".into(),
                ),
                None => why.push("its pods have not reported since their machines started".into()),
                Some(trouble) => why.push(trouble),
            }
            if let Some(nodes) = self.nodes.as_ref().filter(|_| has_no_place(pod)) {
                why.extend(taints(nodes, pod));
            }
        }
        why.sort();
        why.dedup();
        Dns::Unavailable(if why.is_empty() { "CoreDNS has no pods yet".into() } else { why.join("; ") })
    }
}

/// `dns.disabled` of kubeadm's ClusterConfiguration, which kubeadm itself wrote: block style, two spaces a level.
fn is_disabled(kubeadm: &Value) -> bool {
    let text = kubeadm["data"]["ClusterConfiguration"].as_str().unwrap_or_default();
    let of_dns = text.lines().skip_while(|line| line.trim_end() != "dns:").skip(1);
    of_dns.take_while(|line| line.starts_with(' ')).any(|line| line.trim() == "disabled: true")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answers(deployment: Option<Value>, pods: &[Value]) -> Answers {
        Answers {
            deployment,
            pods: json!({ "items": pods }),
            slices: slices("10.244.0.2"),
            ..Answers::default()
        }
    }

    fn slices(address: &str) -> Value {
        json!({ "items": [{ "endpoints": [
            { "addresses": ["10.244.0.9"], "conditions": { "ready": false } },
            { "addresses": [address], "conditions": { "ready": true } },
        ] }] })
    }

    fn pod(ready: bool, state: Value) -> Value {
        json!({ "metadata": { "name": "coredns-1" }, "status": {
            "phase": if ready { "Running" } else { "Pending" },
            "podIP": "10.244.0.2",
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
            "containerStatuses": [{ "ready": ready, "state": state }],
        } })
    }

    fn two() -> Option<Value> {
        Some(json!({ "spec": { "replicas": 2 } }))
    }

    #[test]
    fn one_pod_that_is_ready_is_enough_unless_it_speaks_of_the_time_before_a_power_cut() {
        let good = pod(true, json!({ "running": {} }));
        let looping = pod(false, json!({ "waiting": { "reason": "CrashLoopBackOff" } }));
        let both = answers(two(), &[looping.clone(), good]);
        assert_eq!(both.judge(|_| true), Dns::Available);
        assert_eq!(
            both.judge(|_| false),
            Dns::Unavailable(
                "CrashLoopBackOff; its pods have not reported since their machines started".into()
            )
        );
        let bad = answers(two(), &[looping.clone(), looping]);
        assert_eq!(bad.judge(|_| true), Dns::Unavailable("CrashLoopBackOff".into()));
    }

    #[test]
    fn a_ready_pod_that_the_service_does_not_lead_to_is_not_enough() {
        let good = pod(true, json!({ "running": {} }));
        let why = "its pods are ready, but the Service kube-dns does not lead to them, which kube-controller-manager sees to";
        // Of before the power cut; not ready yet; nothing at all.
        let mut unready = slices("10.244.0.2");
        unready["items"][0]["endpoints"][1]["conditions"]["ready"] = false.into();
        for slices in [slices("10.244.0.1"), unready, json!({ "items": [] }), Value::Null] {
            let answers = Answers { slices, ..answers(two(), std::slice::from_ref(&good)) };
            assert_eq!(answers.judge(|_| true), Dns::Unavailable(why.into()));
        }
    }

    #[test]
    fn a_pod_that_is_about_to_go_does_not_count() {
        let mut leaving = pod(true, json!({ "running": {} }));
        leaving["metadata"]["deletionTimestamp"] = "2026-11-29T10:00:00Z".into();
        assert_eq!(
            answers(two(), &[leaving]).judge(|_| true),
            Dns::Unavailable("CoreDNS has no pods yet".into())
        );
    }

    #[test]
    fn what_cannot_be_placed_and_what_is_scaled_away_say_so() {
        let pending = json!({ "status": { "phase": "Pending", "conditions": [
            { "type": "PodScheduled", "status": "False", "message": "0/1 nodes are available" }] } });
        assert_eq!(
            answers(two(), std::slice::from_ref(&pending)).judge(|_| true),
            Dns::Unavailable("0/1 nodes are available".into())
        );
        let full = json!({ "metadata": { "name": "cp1" }, "spec": { "taints": [
            { "key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule" }] } });
        let get = |path: &str| {
            Ok(match path {
                DEPLOYMENT => two(),
                PODS => Some(json!({ "items": [pending] })),
                SLICES => None,
                NODES => Some(json!({ "items": [full] })),
                other => panic!("{other} is not needed"),
            })
        };
        assert_eq!(
            Answers::ask(get).expect("it answers").judge(|_| true),
            Dns::Unavailable(
                "0/1 nodes are available; cp1 has the taint node.kubernetes.io/disk-pressure".into()
            )
        );
        let none = answers(Some(json!({ "spec": { "replicas": 0 } })), &[]);
        assert_eq!(none.judge(|_| true), Dns::Unavailable("the Deployment coredns is scaled to 0".into()));
    }

    #[test]
    fn nothing_is_missing_only_where_kubeadm_was_told_to_make_no_dns() {
        let kubeadm = |text: &str| Answers {
            kubeadm: Some(json!({ "data": { "ClusterConfiguration": text } })),
            ..answers(None, &[])
        };
        let missing = Dns::Unavailable("there is no Deployment coredns in kube-system".into());
        assert_eq!(kubeadm("dns:\n  disabled: true\nproxy: {}\n").judge(|_| true), Dns::Disabled);
        assert_eq!(kubeadm("dns: {}\nproxy:\n  disabled: true\n").judge(|_| true), missing);
        assert_eq!(kubeadm("dns:\n  imageTag: v1\nproxy:\n  disabled: true\n").judge(|_| true), missing);
        assert_eq!(answers(None, &[]).judge(|_| true), missing);
    }
}
