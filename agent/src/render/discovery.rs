//! The kubeconfig that `kubeadm join` discovers the cluster with: with the CA in it no signature of
//! `cluster-info` has to be waited for.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::yaml::{Map, documents};
use crate::role::NodeSpec;
use crate::role::types::BootstrapToken;

/// For /etc/kindling/discovery.conf. Holds the token.
pub fn discovery_kubeconfig(spec: &NodeSpec, token: &BootstrapToken) -> String {
    let cluster = spec.cluster.as_str();
    let user = "bootstrap";
    let server = format!("https://{}", spec.control_plane_endpoint());
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
