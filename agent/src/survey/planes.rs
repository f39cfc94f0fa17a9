//! What Node and Pod objects say.

use std::net::Ipv4Addr;

use serde_json::Value;

use crate::kube::condition;

/// By the label that kubeadm sets.
pub fn is_control_plane(node: &Value) -> bool {
    !node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"].is_null()
}

pub fn address(node: &Value) -> Option<Ipv4Addr> {
    let list = node["status"]["addresses"].as_array()?;
    list.iter().find(|a| a["type"] == "InternalIP")?["address"].as_str()?.parse().ok()
}

/// Whether a container of this pod was started and has not ended.
pub fn runs(pod: &Value) -> bool {
    let statuses = pod["status"]["containerStatuses"].as_array();
    statuses.into_iter().flatten().any(|s| !s["state"]["running"].is_null())
}

/// `None` for a pod that does what it should; otherwise why it does not.
pub fn trouble(pod: &Value) -> Option<String> {
    let phase = pod["status"]["phase"].as_str().unwrap_or("Unknown");
    if phase == "Succeeded" || (phase == "Running" && condition(pod, "Ready")["status"] == "True") {
        return None;
    }
    let containers = ["initContainerStatuses", "containerStatuses"];
    let statuses = containers.iter().flat_map(|key| pod["status"][key].as_array().into_iter().flatten());
    let mut words = Vec::new();
    for status in statuses.filter(|s| s["ready"] != true) {
        let waiting = &status["state"]["waiting"];
        let ended = [&status["state"]["terminated"], &status["lastState"]["terminated"]];
        if let Some(reason) = waiting["reason"].as_str() {
            words.push(reason.to_owned());
        }
        if let Some(last) = ended.iter().find(|t| !t.is_null() && t["exitCode"] != 0) {
            // After a power cut the kubelet's word is old for a while: the time tells.
            let at = last["finishedAt"].as_str().map(|at| format!(" at {at}")).unwrap_or_default();
            words.push(format!("ended with exit code {}{at}", last["exitCode"]));
        }
        if let Some(since) = status["state"]["running"]["startedAt"].as_str() {
            words.push(format!("runs since {since}, not ready"));
        }
        if let Some(message) = waiting["message"].as_str() {
            words.push(message.chars().take(160).collect());
        }
    }
    if words.is_empty() {
        let scheduled = condition(pod, "PodScheduled");
        let why = scheduled["message"].as_str().filter(|_| scheduled["status"] == "False");
        words.push(why.map_or_else(|| format!("{phase}, not ready"), str::to_owned));
    }
    words.dedup();
    Some(words.join(", "))
}
