//! The cluster's API from the host: a kubeconfig for 127.0.0.1, and what the Nodes say of themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::UpError;
use super::plan::Api;
use crate::dns::{Answers, Dns};
use crate::kube::{Credentials, Kube, KubeError, Server, node_is_ready};
use crate::role::types::Secret;
use crate::survey::Kubeconfig;

/// The administrator's kubeconfig of `kindling render`, towards the port on this host.
pub fn kubeconfig(rendered: &str, api: &Api, port: u16) -> Result<Secret, UpError> {
    let mut text = String::with_capacity(rendered.len() + 80);
    let mut replaced = false;
    for line in rendered.lines() {
        match line.split_once("server: ") {
            Some((indent, _)) if indent.trim().is_empty() => {
                text.push_str(&format!(
                    "{indent}server: https://127.0.0.1:{port}\n{indent}tls-server-name: {}\n",
                    api.name
                ));
                replaced = true;
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    if replaced { Ok(Secret::new(text)) } else { Err(not_ours("has no `server`")) }
}

const RENDER: &str = "render the seeds again with `kindling render`";

fn not_ours(what: &str) -> UpError {
    UpError::new(format!("the seeds' admin.conf {what}"), RENDER)
}

/// A client with the kubeconfig's certificate.
pub fn client(kubeconfig: &Secret, api: &Api, port: u16) -> Result<Kube, UpError> {
    let Kubeconfig { ca, certificate, key, .. } =
        Kubeconfig::parse(kubeconfig.expose()).map_err(|what| not_ours(&what))?;
    let identity = Secret::new(certificate + key.expose());
    let server = Server { ca, address: ([127, 0, 0, 1], port).into(), name: Some(api.name.clone()) };
    Kube::new(server, Credentials::Certificate(identity), Duration::from_secs(10))
        .map_err(|error| UpError::new(format!("admin.conf: {error}"), RENDER))
}

/// A Node as the API has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ApiNode {
    pub name: String,
    pub roles: Vec<String>,
    pub ready: bool,
    pub version: String,
    pub internal_ip: String,
    /// When its kubelet last said whether it is ready, in seconds since the epoch.
    #[serde(skip)]
    pub heartbeat: Option<i64>,
}

pub fn nodes(kube: &Kube) -> Result<Vec<ApiNode>, KubeError> {
    let list = kube.get_json("/api/v1/nodes")?;
    Ok(list["items"].as_array().into_iter().flatten().map(node).collect())
}

/// The names of the nodes that have a pod which is neither Ready nor over.
pub fn unsettled(kube: &Kube) -> Result<BTreeSet<String>, crate::kube::KubeError> {
    Ok(unsettled_of(&kube.get_json("/api/v1/pods")?))
}

fn unsettled_of(pods: &Value) -> BTreeSet<String> {
    let is_ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let is_over = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let pods = pods["items"].as_array().into_iter().flatten();
    pods.filter(|pod| !is_over(pod) && !is_ready(pod))
        .filter_map(|pod| pod["spec"]["nodeName"].as_str().map(str::to_owned))
        .collect()
}

fn node(value: &Value) -> ApiNode {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let find = |list: &Value, kind: &str| {
        list.as_array().into_iter().flatten().find(|item| item["type"] == kind).cloned().unwrap_or_default()
    };
    let labels = value["metadata"]["labels"].as_object();
    let roles =
        labels.into_iter().flatten().filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"));
    let mut roles: Vec<String> = roles.map(str::to_owned).collect();
    roles.sort();
    let heartbeat =
        find(&value["status"]["conditions"], "Ready")["lastHeartbeatTime"].as_str().map(str::to_owned);
    ApiNode {
        name: text(&value["metadata"]["name"]),
        roles,
        ready: node_is_ready(value),
        version: text(&value["status"]["nodeInfo"]["kubeletVersion"]),
        internal_ip: text(&find(&value["status"]["addresses"], "InternalIP")["address"]),
        heartbeat: heartbeat
            .and_then(|t| OffsetDateTime::parse(&t, &Rfc3339).ok())
            .map(OffsetDateTime::unix_timestamp),
    }
}

/// Whether names are resolved in the cluster. `since`: when a machine was powered on, in seconds since the epoch; what
/// its pods said before that is not true any more, and the API shows it for a while.
pub fn dns(kube: &Kube, since: &BTreeMap<String, f64>) -> Result<Dns, KubeError> {
    let answers = Answers::ask(|path| kube.find(path))?;
    Ok(answers.judge(|pod| {
        let on = pod["spec"]["nodeName"].as_str().and_then(|node| since.get(node));
        on.is_none_or(|on| runs_since(pod, *on))
    }))
}

fn runs_since(pod: &Value, on: f64) -> bool {
    let started = |status: &Value| {
        let at = status["state"]["running"]["startedAt"].as_str()?;
        OffsetDateTime::parse(at, &Rfc3339).ok()
    };
    // Whole seconds, by the machine's clock.
    let is_new = |status: &Value| started(status).is_some_and(|at| at.unix_timestamp() as f64 >= on - 5.0);
    let statuses = pod["status"]["containerStatuses"].as_array().filter(|list| !list.is_empty());
    statuses.is_some_and(|list| list.iter().all(is_new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubeconfig_leads_to_this_host_and_asks_for_the_endpoints_name() {
        let rendered = "clusters:\n- name: \"demo\"\n  cluster:\n    server: https://kubeapi.kindling.test:6443\n    certificate-authority-data: QQ==\n";
        let api = Api { address: [10, 0, 0, 10].into(), port: 6443, name: "kubeapi.kindling.test".into() };
        assert_eq!(
            kubeconfig(rendered, &api, 40001).expect("a kubeconfig").expose(),
            "clusters:\n- name: \"demo\"\n  cluster:\n    server: https://127.0.0.1:40001\n    tls-server-name: kubeapi.kindling.test\n    certificate-authority-data: QQ==\n"
        );
        let error = kubeconfig("kind: Config\n", &api, 1).expect_err("no server").to_string();
        assert_eq!(
            error,
            "the seeds' admin.conf has no `server`\n  remedy: render the seeds again with `kindling render`"
        );
    }

    #[test]
    fn a_node_with_a_pod_that_is_not_ready_is_not_settled() {
        let pod = |node: Option<&str>, phase: &str, ready: Option<&str>| {
            let conditions: Vec<Value> = ready
                .map(|status| serde_json::json!({ "type": "Ready", "status": status }))
                .into_iter()
                .collect();
            serde_json::json!({ "spec": { "nodeName": node }, "status": { "phase": phase, "conditions": conditions } })
        };
        let list = serde_json::json!({ "items": [
            pod(Some("cp1"), "Running", Some("True")),
            pod(Some("cp2"), "Running", Some("True")),
            pod(Some("cp2"), "Running", Some("False")),
            pod(Some("w1"), "Succeeded", Some("False")),
            pod(Some("w2"), "Pending", None),
            pod(None, "Pending", None),
        ] });
        assert_eq!(unsettled_of(&list), BTreeSet::from(["cp2".to_owned(), "w2".to_owned()]));
    }

    #[test]
    fn a_pod_of_the_time_before_a_power_cut_does_not_count() {
        let pod = |at: &str| serde_json::json!({ "status": { "containerStatuses": [{ "state": { "running": { "startedAt": at } } }] } });
        assert!(runs_since(&pod("1970-01-01T00:01:40Z"), 104.0));
        assert!(!runs_since(&pod("1970-01-01T00:01:40Z"), 106.0));
        assert!(!runs_since(&serde_json::json!({}), 0.0));
    }

    #[test]
    fn a_node_is_read_as_the_table_wants_it() {
        let value = serde_json::json!({
            "metadata": { "name": "cp1", "labels": {
                "kubernetes.io/os": "linux", "node-role.kubernetes.io/control-plane": "" } },
            "status": {
                "conditions": [{ "type": "MemoryPressure", "status": "False" },
                    { "type": "Ready", "status": "True", "lastHeartbeatTime": "1970-01-01T00:01:40Z" }],
                "addresses": [{ "type": "InternalIP", "address": "10.0.0.11" }, { "type": "Hostname", "address": "cp1" }],
                "nodeInfo": { "kubeletVersion": "v1.37.2" } }
        });
        assert_eq!(
            node(&value),
            ApiNode {
                name: "cp1".into(),
                roles: vec!["control-plane".into()],
                ready: true,
                version: "v1.37.2".into(),
                internal_ip: "10.0.0.11".into(),
                heartbeat: Some(100),
            }
        );
    }
}
