//! A fresh bootstrap token for a node that comes when the cluster is there already, made through its API as
//! `kubeadm token create` makes one. The administrator's certificate of the secrets asks for it.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cluster::{Cluster, PkiError, Secrets, new_token};
use crate::kube::{Credentials, Kube, KubeError, Method, Request, Server};
use crate::role::types::{BootstrapToken, Secret};
use crate::survey::kubeconfig_field;

const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
/// kubeadm puts it into every API server's certificate, whatever way leads there.
const TLS_NAME: &str = "kubernetes";
const TIMEOUT: Duration = Duration::from_secs(6);
/// A seed is booted on the day on which it is rendered, also where the first token may live for ever.
const LONGEST: u32 = 24;

/// Where the API is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Way {
    /// At the cluster's endpoint.
    #[default]
    Endpoint,
    /// `https://HOST:PORT`, a forwarded port for instance.
    Server(String),
    /// At the server of a kubeconfig, that of `kindling up` for instance.
    Kubeconfig(PathBuf),
}

/// A bootstrap token that the cluster knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minted {
    pub token: BootstrapToken,
    pub expires: OffsetDateTime,
}

#[derive(Debug, thiserror::Error)]
pub enum MintError {
    #[error("{0} is no address of an API server\n  remedy: write https://HOST:PORT")]
    NoAddress(String),
    #[error(
        "{0} has no `server: https://...`\n  remedy: name the kubeconfig that `kindling up` or `kindling render` wrote"
    )]
    NoServer(String),
    #[error("the cluster does not answer at {at}: {source}")]
    Silent { at: String, source: KubeError },
    #[error("the cluster at {at} makes no bootstrap token: {source}")]
    Refused { at: String, source: KubeError },
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// Makes a token; at most a few seconds for each address of the endpoint.
pub fn mint(
    cluster: &Cluster,
    secrets: &Secrets,
    way: &Way,
    now: OffsetDateTime,
) -> Result<Minted, MintError> {
    let hours = if cluster.token_ttl_hours == 0 { LONGEST } else { cluster.token_ttl_hours.min(LONGEST) };
    let now = now.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).expect("0 is one");
    let minted = Minted { token: new_token()?, expires: now + time::Duration::hours(i64::from(hours)) };
    let at = address(cluster, way)?;
    let body = secret(&minted);
    let identity = Secret::new(secrets.admin.certificate.clone() + secrets.admin.key.expose());
    let mut last = None;
    for address in resolve(&at)? {
        let server = Server { ca: secrets.ca.certificate.clone(), address, name: Some(TLS_NAME.to_owned()) };
        let request = Request { method: Method::Post, path: SECRETS, body: Some(&body) };
        let kube = Kube::new(server, Credentials::Certificate(identity.clone()), TIMEOUT);
        match kube.and_then(|kube| kube.send(&request)) {
            Ok(_) => return Ok(minted),
            Err(source @ KubeError::Status { .. }) => return Err(MintError::Refused { at, source }),
            Err(source) => last = Some(source),
        }
    }
    let source = last.unwrap_or_else(|| KubeError::Client("its name has no address".into()));
    Err(MintError::Silent { at, source })
}

/// As kubeadm writes it (<https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>).
fn secret(minted: &Minted) -> Value {
    let (id, secret) = minted.token.expose().split_at(6);
    let expires = minted.expires.format(&Rfc3339).expect("RFC 3339 knows every year that a clock shows");
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": format!("bootstrap-token-{id}"), "namespace": "kube-system" },
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "description": "Made by `kindling render --node` for a node that comes later.",
            "token-id": id,
            "token-secret": &secret[1..],
            "expiration": expires,
            "usage-bootstrap-authentication": "true",
            "usage-bootstrap-signing": "true",
            "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
        },
    })
}

/// `HOST:PORT` of where the API is asked.
fn address(cluster: &Cluster, way: &Way) -> Result<String, MintError> {
    match way {
        Way::Endpoint => {
            let endpoint = &cluster.endpoint;
            let host = endpoint.vip.map_or_else(|| endpoint.host.to_string(), |vip| vip.address.to_string());
            Ok(format!("{host}:{}", endpoint.port))
        }
        Way::Server(url) => host_and_port(url).ok_or_else(|| MintError::NoAddress(url.clone())),
        Way::Kubeconfig(path) => server_of(path)
            .and_then(|url| host_and_port(&url))
            .ok_or_else(|| MintError::NoServer(path.display().to_string())),
    }
}

fn host_and_port(url: &str) -> Option<String> {
    let rest = url.strip_prefix("https://").unwrap_or(url).trim_end_matches('/');
    let (host, port) = rest.rsplit_once(':').unwrap_or((rest, "443"));
    let good = !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok();
    good.then(|| format!("{host}:{port}"))
}

fn server_of(kubeconfig: &Path) -> Option<String> {
    let text = std::fs::read_to_string(kubeconfig).ok()?;
    kubeconfig_field(&text, "server: ")
}

fn resolve(at: &str) -> Result<Vec<SocketAddr>, MintError> {
    match at.to_socket_addrs() {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => Err(MintError::Silent {
            at: at.to_owned(),
            source: KubeError::Client(format!("the name is not known to the resolver: {error}")),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_urls_or_addresses() {
        for (url, expected) in [
            ("https://127.0.0.1:6443", Some("127.0.0.1:6443")),
            ("https://kubeapi.kang.org/", Some("kubeapi.kang.org:443")),
            ("10.0.0.10:8443", Some("10.0.0.10:8443")),
            ("https://", None),
            ("https://a/b:1", None),
            ("https://a:port", None),
        ] {
            assert_eq!(host_and_port(url).as_deref(), expected, "{url}");
        }
    }
}
