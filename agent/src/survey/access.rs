//! The administrator's kubeconfig: what `kindling render` wrote, or kubeadm.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::role::types::Secret;

#[derive(Debug, Clone)]
pub struct Kubeconfig {
    /// As in `server:`, without the scheme.
    pub host: String,
    pub port: u16,
    /// `tls-server-name`.
    pub name: Option<String>,
    pub ca: String,
    pub certificate: String,
    pub key: Secret,
}

impl Kubeconfig {
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            format!(
                "cannot read {}: {error}\n  remedy: name the administrator's kubeconfig with --kubeconfig; `kindling render` writes seeds/admin.conf",
                path.display()
            )
        })?;
        Self::parse(&text).map_err(|what| {
            format!(
                "{} {what}\n  remedy: give a kubeconfig as `kindling render` or kubeadm writes it, with the certificates in it",
                path.display()
            )
        })
    }

    /// The error says what is missing, and quotes nothing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let need =
            |key: &str| field(text, key).ok_or_else(|| format!("has no `{}`", key.trim_end_matches(": ")));
        // The error of base64 would quote what is secret.
        let pem = |key: &str| {
            let bytes = STANDARD.decode(need(key)?).ok().and_then(|b| String::from_utf8(b).ok());
            bytes.ok_or_else(|| format!("has a `{}` that is not PEM in base64", key.trim_end_matches(": ")))
        };
        let server = need("server: ")?;
        let authority =
            server.strip_prefix("https://").ok_or("has a `server` that is not https://HOST:PORT")?;
        let authority = authority.split('/').next().unwrap_or(authority);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => {
                (host, port.parse().map_err(|_| "has a `server` with a port that is none")?)
            }
            None => (authority, 443),
        };
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            name: field(text, "tls-server-name: "),
            ca: pem("certificate-authority-data: ")?,
            certificate: pem("client-certificate-data: ")?,
            key: Secret::new(pem("client-key-data: ")?),
        })
    }
}

/// The value behind `key`, as in `server: `. One cluster and one user stand in such a file, as both write it: no YAML
/// library is needed for that.
pub fn field(text: &str, key: &str) -> Option<String> {
    let line = text.lines().find_map(|l| l.trim().trim_start_matches("- ").strip_prefix(key));
    line.map(|v| v.trim().trim_matches('"').to_owned()).filter(|v| !v.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rendered_kubeconfig_is_read() {
        let text = include_str!("../../tests/data/cluster/golden/stacked/admin.conf");
        let config = Kubeconfig::parse(text).expect("it is one");
        assert_eq!((config.host.as_str(), config.port), ("kubeapi.kang.org", 8443));
        assert!(!config.ca.is_empty() && !config.certificate.is_empty() && config.ca != config.certificate);
    }

    #[test]
    fn what_is_missing_is_named_and_no_secret_is() {
        assert_eq!(
            Kubeconfig::parse("server: https://a:6443\n").unwrap_err(),
            "has no `certificate-authority-data`"
        );
        let text = "server: https://a:6443\ncertificate-authority-data: c2VjcmV0*\n";
        assert!(!Kubeconfig::parse(text).unwrap_err().contains("c2Vj"));
    }
}
