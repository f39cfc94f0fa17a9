//! What a role file and the cluster file that it was rendered from have in common.

use schemars::JsonSchema;
use serde::Serialize;

use super::types::Secret;
use crate::input::Section;

/// A day, in seconds: who waits longer is not waiting any more.
pub const LONGEST_DEADLINE: u64 = 86_400;

/// How long a machine waits, in seconds. What failed for lack of time is tried again by the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct Deadlines {
    /// For the API to answer, before a join.
    #[schemars(range(min = 1, max = LONGEST_DEADLINE), example = 1800)]
    pub cluster: u64,
    /// For one kubeadm command.
    #[schemars(range(min = 1, max = LONGEST_DEADLINE), example = 900)]
    pub kubeadm: u64,
    /// For the machine's Node to be Ready, and on the first control plane for cluster DNS.
    #[schemars(range(min = 1, max = LONGEST_DEADLINE), example = 900)]
    pub ready: u64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { cluster: 1800, kubeadm: 900, ready: 900 }
    }
}

/// One registry.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, extend(
    "x-source" = "https://github.com/containerd/containerd/blob/main/docs/hosts.md"
))]
pub struct Registry {
    /// The registry's host with an optional port, without `https://` and without a path.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9.-]*(:\d{1,5})?$"), example = &"harbor.example.org:8443")]
    pub host: String,
    /// Asked before the registry itself, in this order: URLs. A mirror with a CA or a login of its own, or one that is not
    /// verified, has a `[[registries]]` of its own for that, with its host. Docker knows mirrors of docker.io only,
    /// without a path and without a login.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, inner(regex(pattern = r"^https?://\S+$")), example = ["https://mirror.example.org"], extend(
        "default" = []
    ))]
    pub mirrors: Vec<String>,
    /// Takes any certificate of this registry. A mirror by `http://` has none at all.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default, example = true, extend("default" = false))]
    pub insecure: bool,
    /// The certificate of the CA that signed this registry's, as PEM. Its mirrors are verified by their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "the CAs that the image trusts"))]
    pub ca: Option<String>,
    /// The login's name, for this host alone. Its password stands in secrets.toml: `[registries."HOST"]` with `password`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"admin", extend("x-default" = "no login"))]
    pub username: Option<String>,
    /// The login's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
}

pub fn read_deadlines(mut s: Section<'_, '_>) -> Option<Deadlines> {
    let default = Deadlines::default();
    let cluster = s.optional("cluster", "seconds");
    let kubeadm = s.optional("kubeadm", "seconds");
    let ready = s.optional("ready", "seconds");
    s.finish();
    Some(Deadlines {
        cluster: cluster.unwrap_or(default.cluster),
        kubeadm: kubeadm.unwrap_or(default.kubeadm),
        ready: ready.unwrap_or(default.ready),
    })
}

pub fn read_registry(mut s: Section<'_, '_>) -> Option<Registry> {
    let remedy = "see `[[registries]]` in the cluster file that `kindling new` writes";
    let host: Option<String> = s.required("host", remedy);
    let mirrors: Option<Vec<String>> = s.optional("mirrors", remedy);
    let insecure = s.optional("insecure", remedy);
    let ca: Option<String> = s.optional("ca", remedy);
    let username: Option<String> = s.optional("username", remedy);
    let password: Option<Secret> = s.optional_secret("password", remedy);
    if host.as_ref().is_some_and(|h| h.is_empty() || h.contains(['/', ' ', '"'])) {
        s.error(
            "host",
            "must be a host with an optional port, without `https://` or a path",
            "write harbor.example.org or harbor.example.org:8443",
        );
    }
    for mirror in mirrors.iter().flatten() {
        if !(mirror.starts_with("https://") || mirror.starts_with("http://")) || mirror.contains([' ', '"']) {
            s.error("mirrors", "has what is not a URL", "write https://mirror.example.org");
        }
    }
    if username.is_some() != password.is_some() {
        s.error("username", "`username` and `password` go together", "give both, or neither");
    }
    if ca.as_ref().is_some_and(|ca| !ca.contains("-----BEGIN CERTIFICATE-----")) {
        s.error("ca", "is not a PEM certificate", "give the text of the CA's certificate");
    }
    s.finish();
    Some(Registry {
        host: host?,
        mirrors: mirrors.unwrap_or_default(),
        insecure: insecure.unwrap_or_default(),
        ca,
        username,
        password,
    })
}
