//! What an earlier machine of this name left in the cluster: this one has a fresh disk, so it cannot be its own.

use std::time::Duration;

use serde_json::Value;

use super::{Context, kubeadm};
use crate::access::Access;
use crate::error::StepError;
use crate::kube::{Credentials, KubeError, Method, node_is_ready};
use crate::retry::{Attempt, Patience, wait};
use crate::role::types::Secret;

/// The node controller calls a silent Node not Ready after 40 s (`node-monitor-grace-period`); three times that.
const PATIENCE: u64 = 120;

/// Waits until no living machine has this node's name, and removes the Node of a dead one where this node may.
pub fn wait_until_gone(cx: &mut Context<'_>) -> Result<(), StepError> {
    let (host, spec) = (cx.host, cx.spec);
    let path = format!("/api/v1/nodes/{}", spec.name);
    let access = spec.control_plane().map(|role| Access::new(host, spec, role)).transpose()?;
    // The bootstrap token may read Nodes, and no more (kubeadm's ClusterRole kubeadm:get-nodes).
    let kubernetes = spec.kubernetes().expect("only Kubernetes nodes join");
    let bearer = Credentials::Bearer(Secret::new(kubernetes.token.expose()));
    let find = || -> Result<Option<Value>, KubeError> {
        if let Some(access) = &access {
            return access.find(&path);
        }
        let servers = kubeadm::endpoint_servers(host, spec).map_err(KubeError::Client)?;
        let server =
            servers.first().ok_or_else(|| KubeError::Client("the endpoint has no address".into()))?;
        match host.get(server, &bearer, &path, Duration::from_secs(10)) {
            Ok(text) => Ok(serde_json::from_str(&text).ok()),
            // Not allowed to look is no finding: kubeadm looks again.
            Err(error) if matches!(error.status(), Some(403 | 404)) => Ok(None),
            Err(error) => Err(error),
        }
    };
    let node = wait(
        host,
        Patience::shared(PATIENCE, spec.hosts.len()),
        cx.waiting,
        || match find() {
            Ok(Some(node)) if node_is_ready(&node) => {
                Attempt::NotYet(format!("a machine that is not this one is Ready as Node {}", spec.name))
            }
            Ok(node) => Attempt::Ready(node),
            Err(error) => Attempt::NotYet(format!("the API does not answer: {error}")),
        },
        |reason| {
            StepError::passing(
                reason,
                "two machines have one seed: turn one off; a machine that was replaced is not Ready 40 s after its end",
            )
        },
    )?;
    if let (Some(_), Some(access)) = (node, access) {
        (cx.waiting)(&format!("removing the Node {} of the machine that this one replaces", spec.name));
        match access.send(Method::Delete, &path, None) {
            Ok(_) => {}
            Err(error) if error.status() == Some(404) => {}
            Err(error) => {
                return Err(StepError::passing(
                    format!("cannot remove the old Node {}: {error}", spec.name),
                    "it is tried again; or `kubectl delete node` it",
                ));
            }
        }
    }
    Ok(())
}
