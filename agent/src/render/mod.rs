//! Renderers: from the node spec to the text of a file, without I/O. One file a format.
//!
//! A text may hold secrets; the caller chooses the file's mode. Which do is said at each function.

mod addons;
mod chrony;
mod discovery;
mod etcd;
mod haproxy;
mod hosts;
mod keepalived;
mod kernel;
mod kubeadm;
mod nginx;
mod watched;
mod yaml;

pub use addons::substitute;
pub use chrony::chrony;
pub use discovery::{bootstrap_kubeconfig, discovery_kubeconfig};
pub use etcd::{
    ClusterState, ETCD_CLIENT_PORT, ETCD_DATA, ETCD_FILE, ETCD_PEER_PORT, ETCD_PKI, client_url, etcd,
    peer_url,
};
pub use haproxy::{HAPROXY_BACKEND, HAPROXY_SOCKET, HEALTH_PATH, haproxy, haproxy_checks};
pub use hosts::hosts;
pub use keepalived::keepalived;
pub use kernel::{modules, modules_conf, sysctl_conf, sysctls};
pub use kubeadm::{Environment, kubeadm_init, kubeadm_join};
pub use nginx::{NGINX_SERVERS, nginx, nginx_server};
pub use watched::watched;

/// First line of every rendered file that has comments.
pub(crate) const WRITTEN_BY: &str =
    "# Written by Kindling from the role file: changes are lost at the next run.\n";
/// The same in JSON, whose readers pass over a key that is none of theirs.
pub(crate) const WRITTEN_BY_KEY: (&str, &str) = ("x-written-by", "kindling");

/// The API server's own port on every control plane, which kubeadm's `bindPort` defaults to.
pub const API_PORT: u16 = 6443;
