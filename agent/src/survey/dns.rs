//! Whether names are resolved in the cluster.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::DnsRow;
use super::judge::{Judge, items};
use crate::dns::{self, Dns, Spread, spread};

pub(super) fn is_dns(pod: &Value) -> bool {
    pod["metadata"]["labels"]["k8s-app"] == "kube-dns"
}

impl Judge<'_> {
    pub(super) fn dns(&mut self) -> DnsRow {
        let pods: Vec<&Value> = items(&self.answers.pods).filter(|pod| is_dns(pod)).collect();
        let answers = dns::Answers {
            deployment: self.answers.coredns.clone(),
            kubeadm: self.answers.kubeadm.clone(),
            pods: json!({ "items": pods }),
            slices: self.answers.dns_slices.clone(),
            nodes: Some(self.answers.nodes.clone()),
        };
        // What a machine that is off said last is not true any more.
        let counts = |pod: &Value| pod["spec"]["nodeName"].as_str().is_some_and(|node| self.ready(node));
        let state = match answers.judge(counts) {
            Dns::Available => "ok".to_owned(),
            Dns::Disabled => "disabled".to_owned(),
            Dns::Unavailable(why) => {
                self.find("cluster DNS", format!("not available: {why}"), dns::REMEDY);
                why
            }
        };
        let nodes: BTreeSet<&str> =
            answers.pods().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
        if let Spread::Together { node, .. } = spread(&answers, &self.answers.nodes) {
            self.notes.push(format!(
                "all CoreDNS pods run on {node}: when it dies the cluster has no names for some minutes; `kubectl -n kube-system rollout restart deployment coredns` places them anew"
            ));
        }
        DnsRow { state, nodes: nodes.into_iter().map(str::to_owned).collect() }
    }
}
