//! One cluster, never two: with a pre-shared CA two clusters that were formed by accident trust each other, and only
//! what they were born with tells them apart: the UID of the namespace `kube-system`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;

use super::ask::patiently;
use super::{Context, Found};
use crate::access::administrator;
use crate::error::StepError;
use crate::kube::{KubeError, Server};

const PATH: &str = "/api/v1/namespaces/kube-system";

/// Asks each API server that answers for the cluster's UID. Whoever ends last asks all of them.
pub fn look(cx: &mut Context<'_>) -> Result<Found, StepError> {
    let (host, spec) = (cx.host, cx.spec);
    let role = spec.control_plane().expect("only control planes have API servers");
    let credentials = administrator(host, spec, role)?;
    let uid = |address: Ipv4Addr| -> Result<String, KubeError> {
        let server = Server::at(&spec.ca, address, 6443);
        let text = host.get(&server, &credentials, PATH, Duration::from_secs(5))?;
        let namespace: Value =
            serde_json::from_str(&text).map_err(|error| KubeError::Client(error.to_string()))?;
        Ok(namespace["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
    };
    let own = patiently(
        cx,
        "`crictl ps -a` and /var/log/pods say why this machine's API server does not answer",
        || uid(spec.address()),
    )?;
    let mut clusters: BTreeMap<String, Vec<String>> = BTreeMap::new();
    clusters.entry(own).or_default().push(spec.address().to_string());
    for peer in &role.peers {
        // One that does not answer (yet) asks us when it does.
        if let Ok(uid) = uid(*peer) {
            clusters.entry(uid).or_default().push(peer.to_string());
        }
    }
    if clusters.len() > 1 {
        let list: Vec<String> =
            clusters.iter().map(|(uid, at)| format!("{} have kube-system {uid}", at.join(", "))).collect();
        return Err(StepError::lasting(
            format!("TWO CLUSTERS under one CA: {}", list.join("; ")),
            "decide which one stays, and give the control planes of the other fresh disks: booted with their seeds they join",
        ));
    }
    let asked = clusters.values().map(Vec::len).sum::<usize>();
    Ok(Found::Matches(Some(format!("{asked} of {} API servers asked", role.peers.len() + 1))))
}
