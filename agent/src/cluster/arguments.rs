//! Flags of the API server that are the operator's own.

use std::collections::BTreeMap;

use crate::input::Section;

/// What kubeadm gives the API server so that nodes, etcd and the components find and trust one another
/// (kubeadm's cmd/kubeadm/app/phases/controlplane/manifests.go). A flag of `extraArgs` would replace it.
const KUBEADMS: [&str; 22] = [
    "advertise-address",
    "allow-privileged",
    "client-ca-file",
    "enable-bootstrap-token-auth",
    "etcd-cafile",
    "etcd-certfile",
    "etcd-keyfile",
    "etcd-servers",
    "kubelet-client-certificate",
    "kubelet-client-key",
    "proxy-client-cert-file",
    "proxy-client-key-file",
    "requestheader-allowed-names",
    "requestheader-client-ca-file",
    "requestheader-extra-headers-prefix",
    "requestheader-group-headers",
    "requestheader-username-headers",
    "secure-port",
    "service-account-key-file",
    "service-account-signing-key-file",
    "tls-cert-file",
    "tls-private-key-file",
];

pub fn read(mut s: Section<'_, '_>) -> BTreeMap<String, String> {
    let mut arguments = BTreeMap::new();
    for key in s.keys() {
        let value: Option<String> =
            s.optional(&key, "write a text between quotes, as in \"30\" or \"false\"");
        if let Some((message, remedy)) = refused(&key) {
            s.error(&key, message, remedy);
        }
        let Some(value) = value else { continue };
        if value.chars().any(char::is_control) {
            s.error(
                &key,
                "has a line break or another control character",
                "write the flag's value on one line",
            );
        }
        arguments.insert(key, value);
    }
    s.finish();
    arguments
}

fn refused(name: &str) -> Option<(&'static str, &'static str)> {
    match name {
        _ if name.starts_with('-') => Some((
            "is written without the dashes in front",
            "write the flag's name alone, as in audit-log-maxage = \"30\"",
        )),
        _ if !is_flag(name) => Some((
            "is not the name of a flag",
            "write it as `kube-apiserver --help` does, without the dashes, as in audit-log-maxage",
        )),
        "service-cluster-ip-range" => Some((
            "is the network of the Services' addresses",
            "set `services` instead, at the top of the file",
        )),
        "anonymous-auth" => Some((
            "kubelets, proxies and joining nodes ask the API server without a login whether it is ready",
            "leave it out; RBAC says what somebody without a login may see, which is next to nothing",
        )),
        _ if KUBEADMS.contains(&name) => Some((
            "kubeadm gives this flag the value by which the cluster's parts find and trust one another",
            "leave it out",
        )),
        _ => None,
    }
}

fn is_flag(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
