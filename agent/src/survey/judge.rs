//! The survey: what is there, what is wrong, and what helps.

use serde_json::Value;
use time::OffsetDateTime;

use super::dns::is_dns;
use super::planes::{is_control_plane, runs, trouble};
use super::{Answers, CertificateRow, DnsRow, EtcdRow, Finding, NodeRow, PlaneRow, Refusal, Survey, VipRow};
use crate::image::{ROOT_ANNOTATION, VERSION_LABEL};
use crate::kube::{condition, node_is_ready};

/// Certificates that end sooner are told.
const SOON: i64 = 30;
const COMPONENTS: [&str; 4] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"];
const PRESSURES: [&str; 4] = ["MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"];

pub(super) struct Judge<'a> {
    pub(super) answers: &'a Answers,
    findings: Vec<Finding>,
    pub(super) notes: Vec<String>,
}

pub fn judge(answers: &Answers) -> Survey {
    let mut judge = Judge { answers, findings: Vec::new(), notes: Vec::new() };
    judge.endpoint();
    let nodes = judge.nodes();
    let control_planes = judge.control_planes();
    let external_etcd = judge.external_etcd();
    let dns = judge.dns();
    judge.pods(&dns);
    judge.versions();
    judge.images(&nodes);
    let certificates = judge.certificates();
    judge.tokens();
    let vip = judge.vip();
    Survey {
        version: 1,
        server: answers.server.clone(),
        well: judge.findings.is_empty(),
        kubernetes: text(&answers.version["gitVersion"]),
        nodes,
        control_planes,
        external_etcd,
        vip,
        dns,
        certificates,
        findings: judge.findings,
        notes: judge.notes,
    }
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(super) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

pub(super) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

impl<'a> Judge<'a> {
    pub(super) fn find(&mut self, about: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(Finding { about: about.to_owned(), what: what.into(), remedy: remedy.into() });
    }

    pub(super) fn ready(&self, node: &str) -> bool {
        items(&self.answers.nodes).any(|n| name(n) == node && node_is_ready(n))
    }

    fn endpoint(&mut self) {
        if let Some(error) = &self.answers.endpoint_error {
            self.find(
                "endpoint",
                format!("the endpoint does not answer, {} does: {error}", self.answers.server),
                "see who holds the VIP, and on that machine `systemctl status keepalived haproxy kindling-endpoint`",
            );
        }
        match &self.answers.readyz {
            Ok(text) => {
                let failed = text.lines().filter_map(|l| l.strip_prefix("[-]"));
                let failed: Vec<&str> = failed.collect();
                if !failed.is_empty() {
                    self.find("API", format!("not ready: {}", failed.join("; ")), "see the API server's log: `crictl logs` on that control plane");
                }
            }
            Err(error) => self.find("API", format!("not ready: {error}"), "see the API server's log, and etcd's: without a majority of its members nothing can be written"),
        }
    }

    fn nodes(&mut self) -> Vec<NodeRow> {
        let mut rows = Vec::new();
        for node in items(&self.answers.nodes) {
            let labels = node["metadata"]["labels"].as_object();
            let roles =
                labels.into_iter().flatten().filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/"));
            let taints = node["spec"]["taints"].as_array().into_iter().flatten();
            let taint = |t: &Value| {
                let value = t["value"].as_str().map(|v| format!("={v}")).unwrap_or_default();
                format!("{}{value}:{}", text(&t["key"]), text(&t["effect"]))
            };
            let row = NodeRow {
                name: name(node).to_owned(),
                roles: roles.map(str::to_owned).collect(),
                ready: node_is_ready(node),
                version: text(&node["status"]["nodeInfo"]["kubeletVersion"]),
                taints: taints.map(taint).collect(),
                pressure: PRESSURES
                    .iter()
                    .filter(|p| condition(node, p)["status"] == "True")
                    .map(|p| (*p).to_owned())
                    .collect(),
                image: node["metadata"]["labels"][VERSION_LABEL].as_str().map(str::to_owned),
                root_hash: node["metadata"]["annotations"][ROOT_ANNOTATION].as_str().map(str::to_owned),
            };
            if !row.ready {
                let why = condition(node, "Ready");
                let why = why["message"].as_str().unwrap_or("no reason is given");
                self.find(
                    &row.name,
                    format!("the Node is not Ready: {why}"),
                    format!(
                        "look whether the machine is on; on it `kindling status` and `journalctl -u kubelet` say why. One that is lost for good: boot a new one with a seed of `kindling render --node {}`, or delete the Node",
                        row.name
                    ),
                );
            } else {
                for pressure in &row.pressure {
                    let why = text(&condition(node, pressure)["message"]);
                    self.find(&row.name, format!("{pressure}: {why}"), match pressure.as_str() {
                        "DiskPressure" => "free space in /var on that machine, or give it a larger disk",
                        "NetworkUnavailable" => "see the pods of the network add-on in kube-system",
                        _ => "give the machine more, or move pods away: `kubectl top pods -A` shows the largest",
                    });
                }
            }
            if node["spec"]["unschedulable"] == true {
                self.find(
                    &row.name,
                    "cordoned: no new pod is placed on it",
                    format!("when its maintenance is over: kubectl uncordon {}", row.name),
                );
            }
            rows.push(row);
        }
        for expected in &self.answers.expected {
            if !rows.iter().any(|r| r.name == expected.name) {
                self.find(
                    &expected.name,
                    "is in the cluster file, but no Node of this name is in the API",
                    "look at its console, or run `kindling status` on it",
                );
            }
        }
        rows
    }

    fn is_external(&self) -> bool {
        let config = self.answers.kubeadm.as_ref().map(|c| text(&c["data"]["ClusterConfiguration"]));
        config.unwrap_or_default().lines().any(|l| l.trim() == "external:")
    }

    fn control_planes(&mut self) -> Vec<PlaneRow> {
        let nodes: Vec<&Value> = items(&self.answers.nodes).filter(|n| is_control_plane(n)).collect();
        let external = self.is_external();
        let mut rows = Vec::new();
        let mut etcd_well = 0;
        for node in &nodes {
            let node = name(node);
            let ready = self.ready(node);
            let mut states = Vec::new();
            for component in COMPONENTS.iter().take(if external { 3 } else { 4 }) {
                let pod = items(&self.answers.pods).find(|p| {
                    p["spec"]["nodeName"] == node && p["metadata"]["labels"]["component"] == *component
                });
                let state = match pod {
                    _ if !ready => Some("node not ready".to_owned()),
                    None => Some("missing".to_owned()),
                    Some(pod) => trouble(pod),
                };
                if let (Some(state), true) = (&state, ready) {
                    let remedy = if pod.is_some_and(runs) {
                        format!(
                            "wait a minute, it was started; if it stays so, on {node} `crictl logs` and `journalctl -u kubelet` say why"
                        )
                    } else {
                        format!(
                            "on {node}: /etc/kubernetes/manifests/{component}.yaml must be there; `crictl ps -a` and `crictl logs` say what it did"
                        )
                    };
                    self.find(&format!("{component} on {node}"), state.clone(), remedy);
                }
                etcd_well += usize::from(*component == "etcd" && state.is_none());
                states.push(state.unwrap_or_else(|| "ok".into()));
            }
            let mut states = states.into_iter();
            let mut next = || states.next().unwrap_or_default();
            rows.push(PlaneRow {
                node: node.to_owned(),
                apiserver: next(),
                controller_manager: next(),
                scheduler: next(),
                etcd: (!external).then(next),
            });
        }
        let members = nodes.len();
        if !external && members > 2 && etcd_well < members && etcd_well * 2 > members {
            let spare = etcd_well - (members / 2 + 1);
            self.notes.push(format!(
                "etcd: {etcd_well} of {members} members are well, so {} more may fail",
                if spare == 0 { "none".to_owned() } else { spare.to_string() }
            ));
        }
        rows
    }

    fn external_etcd(&mut self) -> Vec<EtcdRow> {
        let mut rows = Vec::new();
        let members = &self.answers.external_etcd;
        // From another network nobody can be reached, and that says nothing.
        let unreachable = members.iter().all(|m| m.error.is_some());
        if unreachable && !members.is_empty() {
            self.notes.push("the members of the external etcd cannot be reached from here; the API server's own check of etcd is among those above".into());
        }
        for member in members {
            let state = match &member.error {
                None => "listens".to_owned(),
                Some(_) if unreachable => "not known".to_owned(),
                Some(error) => {
                    self.find(
                        &member.name,
                        format!("etcd does not listen: {error}"),
                        "look whether the machine is on; on it `systemctl status etcd` and `kindling status`",
                    );
                    error.clone()
                }
            };
            rows.push(EtcdRow { name: member.name.clone(), state });
        }
        rows
    }

    /// All but the control plane's own and cluster DNS, which were looked at, and those of nodes that are known to be gone.
    fn pods(&mut self, dns: &DnsRow) {
        for pod in items(&self.answers.pods) {
            let component = pod["metadata"]["labels"]["component"].as_str().unwrap_or_default();
            let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
            let planes = self.answers.nodes["items"].as_array().into_iter().flatten();
            let of_plane = COMPONENTS.contains(&component)
                && planes.filter(|n| is_control_plane(n)).any(|n| name(n) == node);
            if of_plane
                || (dns.state != "ok" && is_dns(pod))
                || (!node.is_empty() && !self.ready(node))
                || !pod["metadata"]["deletionTimestamp"].is_null()
            {
                continue;
            }
            if let Some(why) = trouble(pod) {
                let at = if node.is_empty() { String::new() } else { format!(" on {node}") };
                let pod = name(pod);
                self.find(
                    &format!("pod {pod}{at}"),
                    why,
                    format!("kubectl -n kube-system describe pod {pod}"),
                );
            }
        }
    }

    fn certificate(&mut self, what: &str, ends: OffsetDateTime, remedy: &str) -> CertificateRow {
        let days = (ends - self.answers.now).whole_days();
        if ends <= self.answers.now {
            self.find(what, "has ended", remedy);
        } else if days < SOON {
            self.find(what, format!("ends in {days} days"), remedy);
        }
        CertificateRow { what: what.to_owned(), ends: ends.date().to_string(), days }
    }

    fn certificates(&mut self) -> Vec<CertificateRow> {
        let mut rows = Vec::new();
        let mut unreachable = Vec::new();
        for plane in &self.answers.planes {
            let what = format!("API server of {}", plane.node);
            match &plane.certificate {
                Ok(certificate) => rows.push(self.certificate(
                    &what,
                    certificate.ends,
                    "`kindling certs` on that machine says who renews it; `kindling certs renew` does it now",
                )),
                Err(Refusal::Bad(error)) => self.find(
                    &what,
                    format!("its certificate is not good: {error}"),
                    "`kindling certs` on that machine; one of another CA is another cluster's",
                ),
                // A Node that is not Ready was told already.
                Err(Refusal::Unreachable(_)) => unreachable.push(plane.node.as_str()),
            }
        }
        if !unreachable.is_empty() {
            self.notes.push(format!(
                "the API servers of {} cannot be reached from here by themselves: their certificates' ends are not known",
                unreachable.join(", ")
            ));
        }
        if self.answers.forwarded {
            self.notes.push(
                "asked through a port of this machine: who holds the VIP and when the API servers' certificates end is not known from here".into(),
            );
        }
        if let Some(ends) = self.answers.admin {
            rows.push(self.certificate(
                "this kubeconfig",
                ends,
                "`kindling new --renew`, then `kindling render`",
            ));
        }
        if let Some(ends) = self.answers.ca {
            rows.push(self.certificate(
                "the cluster's CA",
                ends,
                "a CA lives ten years; plan a new cluster, or replace it by hand",
            ));
        }
        rows.sort_by_key(|r| r.days);
        rows
    }

    fn tokens(&mut self) {
        let valid = self.answers.tokens.iter().filter(|t| t.ends.is_none_or(|e| e > self.answers.now));
        // Longest-lived last.
        let best =
            valid.max_by_key(|t| t.ends.unwrap_or(OffsetDateTime::UNIX_EPOCH + time::Duration::days(36_500)));
        self.notes.push(match best {
            Some(token) => match token.ends {
                Some(ends) => format!("bootstrap token {} is valid for {} h more", token.id, (ends - self.answers.now).whole_hours()),
                None => format!("bootstrap token {} never ends: kubectl -n kube-system delete secret bootstrap-token-{} when nobody joins any more", token.id, token.id),
            },
            None => "no bootstrap token is valid: `kindling render --node NAME` has the cluster make one for a node that comes".into(),
        });
    }

    fn vip(&mut self) -> Option<VipRow> {
        let vip = self.answers.vip.as_ref()?;
        Some(match &vip.holder {
            Ok((holder, how)) => {
                VipRow { address: vip.address.clone(), holder: Some(holder.clone()), how: (*how).to_owned() }
            }
            Err(why) => VipRow { address: vip.address.clone(), holder: None, how: why.clone() },
        })
    }
}
