//! Whether this machine's kubeadm may write for the cluster. It takes etcd's version by its own
//! (kubernetes/cmd/kubeadm/app/constants/constants.go), and compares nothing: one a minor version newer or older would
//! start its own etcd beside the others'.

use serde_json::Value;

use super::Context;
use crate::access::Access;
use crate::error::StepError;
use crate::etcd::Etcd;
use crate::lease::Lock;
use crate::retry::{Attempt, Patience, wait};
use crate::role::components::etcd_minor;
use crate::role::types::KubernetesVersion;

pub const PATH: &str = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config";

/// The version in the ConfigMap `kubeadm-config`, which `kubeadm upgrade apply` writes anew. What follows the numbers, as in
/// `v1.37.0-rc.1`, says nothing of what goes with what.
fn noted(config: &Value) -> Option<KubernetesVersion> {
    let text = config["data"]["ClusterConfiguration"].as_str()?;
    let version = text.lines().find_map(|line| line.strip_prefix("kubernetesVersion: "))?;
    version.trim().trim_matches(['"', '\'']).split(['-', '+']).next()?.parse().ok()
}

/// Whether a machine with this kubeadm may join by what the ConfigMap says. One without a version is waited for: nobody knows
/// whether it may.
pub fn verdict(config: &Value, kubeadm: KubernetesVersion, control_plane: bool) -> Attempt<()> {
    match noted(config).map(|cluster| refusal(kubeadm, cluster, control_plane)) {
        Some(None) => Attempt::Ready(()),
        Some(Some(error)) => Attempt::Never(error),
        None => Attempt::NotYet("the ConfigMap kubeadm-config names no version".into()),
    }
}

/// Why a machine with this kubeadm may not join a cluster of that version.
fn refusal(kubeadm: KubernetesVersion, cluster: KubernetesVersion, control_plane: bool) -> Option<StepError> {
    let newer = (kubeadm.major, kubeadm.minor) > (cluster.major, cluster.minor);
    let older = (kubeadm.major, kubeadm.minor) < (cluster.major, cluster.minor);
    let why = if control_plane && (newer || older) {
        "it would start an etcd member and a control plane of its own version"
    } else if newer {
        "its kubelet would be newer than the API servers"
    } else {
        return None;
    };
    Some(StepError::lasting(
        format!("the cluster is of Kubernetes {cluster}, this image has {kubeadm}: {why}"),
        format!(
            "boot this machine with an image of v{}.{}; or upgrade the cluster with `kubeadm upgrade` first",
            cluster.major, cluster.minor
        ),
    ))
}

/// Before kubeadm writes etcd's manifest. Without an answer it writes none: where the API needs this very member, the other
/// members say of which version they are.
pub fn may_write_etcd(
    cx: &mut Context<'_>,
    access: &Access<'_>,
    etcd: &Etcd<'_>,
    kubeadm: KubernetesVersion,
    lock: Option<&Lock<'_>>,
) -> Result<(), StepError> {
    let (host, spec) = (cx.host, cx.spec);
    let peers = &spec.control_plane().expect("only control planes have etcd members").peers;
    wait(
        host,
        Patience::seconds(spec.deadlines.cluster),
        cx.waiting,
        || {
            if let Some(lock) = lock {
                lock.keep();
            }
            let error = match access.get(PATH) {
                Ok(config) => return verdict(&config, kubeadm, true),
                Err(error) => error,
            };
            let theirs = peers.iter().find_map(|peer| etcd.minor_version(*peer).ok());
            match theirs {
                Some(minor) if minor == etcd_minor(kubeadm) => Attempt::Ready(()),
                Some(minor) => Attempt::Never(StepError::lasting(
                    format!(
                        "the other etcd members are of version 3.{minor}, and kubeadm {kubeadm} starts 3.{}",
                        etcd_minor(kubeadm)
                    ),
                    "boot this machine with the image that the others run",
                )),
                None => Attempt::NotYet(format!("nobody says of which version the cluster is: {error}")),
            }
        },
        |reason| {
            StepError::passing(
                reason,
                "power the other control planes on: their consoles say what they wait for",
            )
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_not_there_is_waited_for_and_a_suffix_is_read_over() {
        let said = |line: &str| {
            let config = serde_json::json!({"data": {"ClusterConfiguration": format!("kind: ClusterConfiguration\n{line}\n")}});
            verdict(&config, "v1.36.3".parse().expect("a version"), false)
        };
        for line in ["kubernetesVersion: v1.36.0-rc.1", "kubernetesVersion: \"v1.37.2+vendor.1\""] {
            assert!(matches!(said(line), Attempt::Ready(())), "{line}");
        }
        assert!(matches!(said("kubernetesVersion: v1.35.0-beta.0"), Attempt::Never(_)));
        for line in ["", "kubernetesVersion: latest", "kubernetesVersion:"] {
            assert!(matches!(said(line), Attempt::NotYet(_)), "{line}");
        }
        assert!(matches!(
            verdict(&Value::Null, "v1.36.3".parse().expect("a version"), true),
            Attempt::NotYet(_)
        ));
    }

    #[test]
    fn only_a_kubeadm_of_the_clusters_minor_version_makes_a_control_plane() {
        let refused = |kubeadm: &str, cluster: &str, control_plane| {
            let version = |text: &str| text.parse().expect("a version");
            refusal(version(kubeadm), version(cluster), control_plane).is_some()
        };
        for (kubeadm, cluster, control_plane, worker) in [
            ("v1.37.2", "v1.37.0", false, false),
            ("v1.37.2", "v1.36.3", true, true),
            ("v1.36.3", "v1.37.2", true, false),
        ] {
            assert_eq!(refused(kubeadm, cluster, true), control_plane, "{kubeadm} {cluster}");
            assert_eq!(refused(kubeadm, cluster, false), worker, "{kubeadm} {cluster}");
        }
    }
}
