//! Every certificate that Kindling, kubeadm or the kubelet keep on a node.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cluster::pki::validity;
use crate::host::{Host, read_text};
use crate::plan::CA_FILE;
use crate::survey::kubeconfig_field;

/// Who makes a new one, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewer {
    /// `kubeadm certs renew`, which `kindling certs renew` runs.
    Kubeadm,
    /// `kindling certs renew`, from the CA in the role file; and each run of the agent.
    Kindling,
    /// It rotates its own.
    Kubelet,
    /// The copy of another file.
    Copy,
    /// Nobody verifies it.
    Nobody,
    /// A CA.
    Hand,
}

impl Renewer {
    pub fn how(self) -> &'static str {
        match self {
            Self::Kubeadm => "kindling-certs.timer, by kubeadm certs renew",
            Self::Kindling => "kindling-certs.timer, from the CA in the role file",
            Self::Kubelet => "the kubelet, by itself",
            Self::Copy => "kindling-certs.timer, as a copy of admin.conf",
            Self::Nobody => "nobody verifies it; remove it and restart the kubelet for a new one",
            Self::Hand => "by hand: a CA lives ten years",
        }
    }

    /// Whether `kindling certs renew` makes a new one.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Kubeadm | Self::Kindling | Self::Copy)
    }
}

impl Serialize for Renewer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.how())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    pub path: &'static str,
    /// `None`: it is there, and is no certificate.
    #[serde(serialize_with = "text")]
    pub starts: Option<OffsetDateTime>,
    #[serde(serialize_with = "text")]
    pub ends: Option<OffsetDateTime>,
    pub renewed_by: Renewer,
}

fn text<S: Serializer>(date: &Option<OffsetDateTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match date.and_then(|date| date.format(&Rfc3339).ok()) {
        Some(text) => serializer.serialize_some(&text),
        None => serializer.serialize_none(),
    }
}

use Renewer::*;

const FILES: &[(&str, Renewer)] = &[
    (CA_FILE, Hand),
    ("/etc/kubernetes/pki/ca.crt", Hand),
    ("/etc/kubernetes/pki/front-proxy-ca.crt", Hand),
    ("/etc/kubernetes/pki/etcd/ca.crt", Hand),
    ("/etc/kubernetes/pki/apiserver.crt", Kubeadm),
    ("/etc/kubernetes/pki/apiserver-kubelet-client.crt", Kubeadm),
    ("/etc/kubernetes/pki/front-proxy-client.crt", Kubeadm),
    ("/etc/kubernetes/pki/etcd/server.crt", Kubeadm),
    ("/etc/kubernetes/pki/etcd/peer.crt", Kubeadm),
    ("/etc/kubernetes/pki/etcd/healthcheck-client.crt", Kubeadm),
    ("/etc/kubernetes/admin.conf", Kubeadm),
    ("/etc/kubernetes/super-admin.conf", Kubeadm),
    ("/etc/kubernetes/controller-manager.conf", Kubeadm),
    ("/etc/kubernetes/scheduler.conf", Kubeadm),
    ("/root/.kube/config", Copy),
    ("/var/lib/kubelet/pki/kubelet-client-current.pem", Kubelet),
    ("/var/lib/kubelet/pki/kubelet-server-current.pem", Kubelet),
    ("/var/lib/kubelet/pki/kubelet.crt", Nobody),
    ("/etc/etcd/pki/ca.crt", Hand),
    ("/etc/etcd/pki/server.crt", Kindling),
    ("/etc/etcd/pki/peer.crt", Kindling),
    ("/etc/etcd/pki/client.crt", Kindling),
];
/// kubeadm issues it only where etcd is local.
const ETCD_CLIENT: &str = "/etc/kubernetes/pki/apiserver-etcd-client.crt";

/// Those that are there, the first to end first.
pub fn entries(host: &dyn Host) -> Vec<Entry> {
    let local = read_text(host, "/etc/kubernetes/pki/etcd/server.crt").is_some();
    let client = (ETCD_CLIENT, if local { Kubeadm } else { Kindling });
    let mut list = Vec::new();
    for (path, renewed_by) in FILES.iter().copied().chain([client]) {
        let Some(text) = read_text(host, path) else { continue };
        let life = certificate(&text).and_then(|pem| validity(&pem));
        let (starts, ends) = (life.map(|l| l.0), life.map(|l| l.1));
        // What has none must be looked at first.
        list.push(Entry { path, starts, ends, renewed_by });
    }
    list.sort_by_key(|e| (e.ends, e.path));
    list
}

/// The certificate in a PEM file or in a kubeconfig.
fn certificate(text: &str) -> Option<String> {
    match kubeconfig_field(text, "client-certificate-data: ") {
        Some(data) => String::from_utf8(STANDARD.decode(data).ok()?).ok(),
        None => {
            // The kubelet's files hold the key as well, in either order.
            let from = text.find("-----BEGIN CERTIFICATE-----")?;
            Some(text[from..].to_owned())
        }
    }
}
