//! Kubeconfigs with the bootstrap token: the one that `kubeadm join` discovers the cluster with (with the CA in it no
//! signature of `cluster-info` has to be waited for), and the kubelet's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::API_PORT;
use super::yaml::{Map, documents};
use crate::role::NodeSpec;
use crate::role::types::BootstrapToken;

/// For /etc/kindling/discovery.conf. Holds the token.
pub fn discovery_kubeconfig(spec: &NodeSpec, token: &BootstrapToken) -> String {
    kubeconfig(spec, token, &spec.control_plane_endpoint())
}

/// For /etc/kubernetes/bootstrap-kubelet.conf of a control plane, whose kubelet asks the API server beside it from 1.33
/// on (kubeadm's cmd/phases/join/kubelet.go). Holds the token.
pub fn bootstrap_kubeconfig(spec: &NodeSpec, token: &BootstrapToken) -> String {
    kubeconfig(spec, token, &format!("{}:{API_PORT}", spec.address()))
}

fn kubeconfig(spec: &NodeSpec, token: &BootstrapToken, server: &str) -> String {
    let cluster = spec.cluster.as_str();
    let user = "bootstrap";
    let server = format!("https://{server}");
    let authority = STANDARD.encode(&spec.ca);
    documents([Map::new()
        .with("apiVersion", "v1")
        .with("kind", "Config")
        .with(
            "clusters",
            vec![Map::new().with("name", cluster).with(
                "cluster",
                Map::new().with("server", server).with("certificate-authority-data", authority),
            )],
        )
        .with(
            "users",
            vec![Map::new().with("name", user).with("user", Map::new().with("token", token.expose()))],
        )
        .with(
            "contexts",
            vec![
                Map::new()
                    .with("name", cluster)
                    .with("context", Map::new().with("cluster", cluster).with("user", user)),
            ],
        )
        .with("current-context", cluster)])
}
