//! The administrator's kubeconfig. As the CA is known beforehand, it is ready before any machine boots.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Cluster, Secrets};
use crate::role::types::Secret;

/// YAML as kubeadm's admin.conf, with the endpoint as the server.
pub fn kubeconfig(cluster: &Cluster, secrets: &Secrets) -> Secret {
    let name = &cluster.name;
    let server = cluster.server();
    let ca = STANDARD.encode(&secrets.ca.certificate);
    let certificate = STANDARD.encode(&secrets.admin.certificate);
    let key = STANDARD.encode(secrets.admin.key.expose());
    Secret::new(format!(
        "apiVersion: v1
kind: Config
clusters:
- name: \"{name}\"
  cluster:
    server: {server}
    certificate-authority-data: {ca}
users:
- name: \"{name}-admin\"
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: \"{name}\"
  context:
    cluster: \"{name}\"
    user: \"{name}-admin\"
current-context: \"{name}\"
preferences: {{}}
"
    ))
}
