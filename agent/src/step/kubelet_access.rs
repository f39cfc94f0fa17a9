//! What lets an API server ask the kubelets: for logs, exec, attach and port-forward.
//!
//! kubeadm 1.35.5 and 1.36.1 took the group out of the certificate with which it asks, and bind its name to a role instead;
//! the binding is made by `kubeadm init` and `kubeadm upgrade apply`, not by a join. A control plane that joins a cluster of an
//! earlier patch could ask nobody (<https://github.com/kubernetes/kubeadm/issues/3310>).

use serde_json::json;

use super::ask::{access, patiently};
use super::{Context, Found};
use crate::access::Access;
use crate::error::StepError;
use crate::kube::KubeError;
use crate::role::types::KubernetesVersion;

const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
/// kubeadm's name for it, which its later upgrades find.
const NAME: &str = "kubeadm:apiserver-kubelet-client";
const REMEDY: &str =
    "`kubectl get clusterrolebinding kubeadm:apiserver-kubelet-client` shows who may ask the kubelets";

/// Whether this kubeadm's certificate for it has no rights of its own.
pub fn is_needed(kubeadm: KubernetesVersion) -> bool {
    match kubeadm.minor {
        35 => kubeadm.patch >= 5,
        36 => kubeadm.patch >= 1,
        minor => minor > 36,
    }
}

pub fn look(cx: &mut Context<'_>) -> Result<Found, StepError> {
    let (access, path) = (access(cx)?, format!("{BINDINGS}/{NAME}"));
    Ok(match patiently(cx, REMEDY, || access.find(&path))? {
        Some(_) => Found::matches(),
        None => Found::Differs(format!("there is no ClusterRoleBinding {NAME}")),
    })
}

pub fn act(cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
    let access = access(cx)?;
    patiently(cx, REMEDY, || make(&access))?;
    Ok(None)
}

fn make(access: &Access<'_>) -> Result<(), KubeError> {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": NAME },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:kubelet-api-admin" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "kube-apiserver-kubelet-client" }],
    });
    // Another control plane may make it at the same moment.
    access.create(BINDINGS, &binding)
}
