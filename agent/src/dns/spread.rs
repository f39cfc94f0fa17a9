//! Whether the pods of cluster DNS stand on one machine, whose death would take all names with it.
//!
//! kubeadm's Deployment asks the scheduler for different machines (a preferred anti-affinity on the host name), but the
//! scheduler places both pods when there is one machine only, and moves nobody later.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Answers;
use crate::kube::node_is_ready;
use crate::survey::pod_trouble;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spread {
    /// There is nothing to do: where they are, or why they stay.
    Settled(String),
    /// They stand together and do not all run yet: none of them can be missed.
    Settling(String),
    /// They stand together and run; this one can go to another machine.
    Together { node: String, pod: String, uid: String },
}

pub fn spread(answers: &Answers, nodes: &Value) -> Spread {
    let settled = |why: &str| Spread::Settled(why.to_owned());
    let placed: Vec<&Value> = answers.pods().filter(|pod| pod["spec"]["nodeName"].is_string()).collect();
    let at: BTreeSet<&str> = placed.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
    let (Some(first), Some(node)) = (placed.first(), at.first()) else {
        return settled("CoreDNS has no pods yet");
    };
    // What is placed from now on the scheduler puts beside nobody.
    if at.len() > 1 || placed.len() < 2 {
        return settled(&format!("CoreDNS runs on {}", at.into_iter().collect::<Vec<_>>().join(", ")));
    }
    if is_pinned(first) {
        return settled("CoreDNS's Deployment says itself where its pods run");
    }
    let others = nodes["items"].as_array().into_iter().flatten();
    let others = others.filter(|other| other["metadata"]["name"] != *node && is_open(other));
    let taking: Vec<&Value> = others.filter(|other| hindered(other, first).all(is_passing)).collect();
    if taking.is_empty() {
        return settled(&format!("CoreDNS runs on {node}: no other machine takes it"));
    }
    // Now the scheduler would place the next one here again.
    if taking.iter().all(|other| hindered(other, first).next().is_some()) {
        return Spread::Settling(format!("CoreDNS runs on {node} alone, and no other machine takes it yet"));
    }
    let ready = placed.iter().filter(|pod| pod_trouble(pod).is_none()).count();
    if ready < placed.len() || (placed.len() as u64) < answers.wanted() {
        return Spread::Settling(format!("CoreDNS runs on {node} alone, and not all of its pods are ready"));
    }
    // All control planes choose the same one.
    let text = |pod: &Value, key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
    let newest = placed.iter().max_by_key(|pod| (text(pod, "creationTimestamp"), text(pod, "name")));
    let newest = newest.expect("there are two");
    Spread::Together { node: (*node).to_owned(), pod: text(newest, "name"), uid: text(newest, "uid") }
}

/// Whether the operator changed where the pods may run: the scheduler could put the next one there again.
fn is_pinned(pod: &Value) -> bool {
    let affinity = &pod["spec"]["affinity"];
    let selector = pod["spec"]["nodeSelector"].as_object();
    !affinity["nodeAffinity"].is_null()
        || affinity["podAntiAffinity"].is_null()
        || selector.into_iter().flatten().any(|(label, _)| label != "kubernetes.io/os")
}

fn is_open(node: &Value) -> bool {
    node_is_ready(node) && node["spec"]["unschedulable"] != true
}

/// The taints of a node that keep the pod away.
fn hindered<'a>(node: &'a Value, pod: &'a Value) -> impl Iterator<Item = &'a Value> {
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    taints.filter(|taint| taint["effect"] != "PreferNoSchedule" && !tolerates(pod, taint))
}

/// Which taints keep the pod away from which nodes, in words.
pub(super) fn taints(nodes: &Value, pod: &Value) -> Vec<String> {
    let nodes = nodes["items"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    nodes
        .flat_map(|node| {
            let name = text(&node["metadata"]["name"]);
            hindered(node, pod).map(move |taint| format!("{name} has the taint {}", text(&taint["key"])))
        })
        .collect()
}

/// Whether the taint goes by itself from a Node that is Ready: the node lifecycle controller takes it away a moment later.
fn is_passing(taint: &Value) -> bool {
    ["not-ready", "unreachable", "network-unavailable"]
        .iter()
        .any(|name| taint["key"].as_str() == Some(&format!("node.kubernetes.io/{name}")))
}

/// <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>
fn tolerates(pod: &Value, taint: &Value) -> bool {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    pod["spec"]["tolerations"].as_array().into_iter().flatten().any(|toleration| {
        let exists = toleration["operator"] == "Exists";
        let (key, effect) = (text(&toleration["key"]), text(&toleration["effect"]));
        (effect.is_empty() || taint["effect"] == effect.as_str())
            && ((key.is_empty() && exists) || taint["key"] == key.as_str())
            && (exists || text(&toleration["value"]) == text(&taint["value"]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, node: Option<&str>, ready: bool) -> Value {
        json!({
            "metadata": { "name": name, "uid": format!("uid-{name}"), "creationTimestamp": "2026-11-29T10:00:00Z" },
            "spec": {
                "nodeName": node,
                "nodeSelector": { "kubernetes.io/os": "linux" },
                "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [] } },
                "tolerations": [
                    { "key": "CriticalAddonsOnly", "operator": "Exists" },
                    { "key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule" },
                ],
            },
            "status": { "phase": if ready { "Running" } else { "Pending" },
                "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] },
        })
    }

    fn node(name: &str, ready: &str, taint: &str) -> Value {
        json!({
            "metadata": { "name": name },
            "spec": { "taints": [{ "key": taint, "effect": "NoSchedule" }] },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        })
    }

    const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

    fn judged(pods: &[Value], nodes: &[Value]) -> Spread {
        let answers = Answers {
            deployment: Some(json!({ "spec": { "replicas": 2 } })),
            pods: json!({ "items": pods }),
            ..Answers::default()
        };
        spread(&answers, &json!({ "items": nodes }))
    }

    fn stays(spread: Spread) -> String {
        match spread {
            Spread::Settled(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_newest_of_two_on_one_machine_goes_when_another_machine_takes_it() {
        let nodes = [node("cp1", "True", CONTROL_PLANE), node("cp2", "True", CONTROL_PLANE)];
        let (a, mut b) = (pod("a", Some("cp1"), true), pod("b", Some("cp1"), true));
        let goes = |name: &str| Spread::Together {
            node: "cp1".into(),
            pod: name.into(),
            uid: format!("uid-{name}"),
        };
        assert_eq!(judged(&[a.clone(), b.clone()], &nodes), goes("b"));
        assert_eq!(
            judged(&[b.clone(), a.clone()], &nodes),
            goes("b"),
            "every control plane chooses the same"
        );
        b["metadata"]["creationTimestamp"] = "2026-11-29T09:00:00Z".into();
        assert_eq!(judged(&[a, b], &nodes), goes("a"));
    }

    #[test]
    fn nobody_goes_where_nobody_else_takes_it() {
        let pods = [pod("a", Some("cp1"), true), pod("b", Some("cp1"), true)];
        let own = node("cp1", "True", CONTROL_PLANE);
        for other in [node("cp2", "False", CONTROL_PLANE), node("w1", "True", "dedicated")] {
            let why = stays(judged(&pods, &[own.clone(), other]));
            assert_eq!(why, "CoreDNS runs on cp1: no other machine takes it");
        }
        let mut cordoned = node("cp2", "True", CONTROL_PLANE);
        cordoned["spec"]["unschedulable"] = true.into();
        stays(judged(&pods, &[own.clone(), cordoned]));
        stays(judged(&pods, &[own]));
    }

    /// A Node is Ready a moment before the scheduler places anything on it: by then the pod would come back.
    #[test]
    fn a_machine_that_has_just_become_ready_is_waited_for() {
        let pods = [pod("a", Some("cp1"), true), pod("b", Some("cp1"), true)];
        let mut fresh = node("cp2", "True", CONTROL_PLANE);
        let taint = json!({ "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" });
        fresh["spec"]["taints"].as_array_mut().expect("a list").push(taint);
        let nodes = [node("cp1", "True", CONTROL_PLANE), fresh];
        assert!(matches!(judged(&pods, &nodes), Spread::Settling(_)));
    }

    #[test]
    fn nobody_goes_while_the_other_is_not_ready_or_is_on_its_way() {
        let nodes = [node("cp1", "True", CONTROL_PLANE), node("cp2", "True", CONTROL_PLANE)];
        let a = pod("a", Some("cp1"), true);
        assert!(matches!(judged(&[a.clone(), pod("b", Some("cp1"), false)], &nodes), Spread::Settling(_)));
        let mut leaving = pod("b", Some("cp1"), true);
        leaving["metadata"]["deletionTimestamp"] = "2026-11-29T10:00:00Z".into();
        stays(judged(&[a.clone(), leaving.clone()], &nodes));
        stays(judged(&[a.clone(), leaving, pod("c", None, false)], &nodes));
        assert_eq!(stays(judged(&[a, pod("b", Some("cp2"), false)], &nodes)), "CoreDNS runs on cp1, cp2");
    }

    /// A kubelet that puts a pod out for want of disk leaves it as Failed.
    #[test]
    fn a_pod_that_was_put_out_is_nowhere() {
        let nodes = [node("cp1", "True", CONTROL_PLANE), node("cp2", "True", CONTROL_PLANE)];
        let (a, b) = (pod("a", Some("cp1"), true), pod("b", Some("cp1"), true));
        for place in ["cp1", "cp2"] {
            let mut out = pod("c", Some(place), false);
            out["status"]["phase"] = "Failed".into();
            assert!(
                matches!(judged(&[a.clone(), b.clone(), out], &nodes), Spread::Together { .. }),
                "{place}"
            );
        }
    }

    #[test]
    fn an_operators_own_placement_is_left_alone() {
        let nodes = [node("cp1", "True", CONTROL_PLANE), node("cp2", "True", CONTROL_PLANE)];
        let mut pods = [pod("a", Some("cp1"), true), pod("b", Some("cp1"), true)];
        for pod in &mut pods {
            pod["spec"]["nodeSelector"] = json!({ "kubernetes.io/os": "linux", "zone": "a" });
        }
        assert_eq!(stays(judged(&pods, &nodes)), "CoreDNS's Deployment says itself where its pods run");
    }
}
