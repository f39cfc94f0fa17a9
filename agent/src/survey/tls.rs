//! The certificate that a server presents.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

#[derive(Debug, Clone, PartialEq)]
pub struct Certificate {
    pub ends: OffsetDateTime,
    /// What no two certificates of a CA have in common.
    pub serial: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody answers from here, which a firewall may be the reason for.
    Unreachable(String),
    /// Somebody answers, and the certificate is not good.
    Bad(String),
}

/// Connects within `timeout`, and verifies against the CA that the name is in the certificate.
pub fn certificate(
    ca: &str,
    address: SocketAddr,
    name: &str,
    timeout: Duration,
) -> Result<Certificate, Refusal> {
    let bad = |error: &dyn std::fmt::Display| Refusal::Bad(error.to_string());
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(ca.as_bytes()).map_err(|e| bad(&e))?;
    roots.add(ca).map_err(|e| bad(&e))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = match name.parse::<IpAddr>() {
        Ok(ip) => ServerName::IpAddress(ip.into()),
        Err(_) => ServerName::try_from(name.to_owned()).map_err(|e| bad(&e))?,
    };
    let unreachable = |error: std::io::Error| Refusal::Unreachable(error.to_string());
    let mut stream = TcpStream::connect_timeout(&address, timeout).map_err(unreachable)?;
    stream.set_read_timeout(Some(timeout)).map_err(unreachable)?;
    stream.set_write_timeout(Some(timeout)).map_err(unreachable)?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(|e| bad(&e))?;
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut stream) {
            return Err(match error.kind() {
                ErrorKind::InvalidData => bad(&error),
                _ => unreachable(error),
            });
        }
    }
    let presented = connection.peer_certificates().and_then(|list| list.first());
    let presented = presented.ok_or_else(|| Refusal::Bad("no certificate was presented".into()))?;
    let (_, certificate) = X509Certificate::from_der(presented).map_err(|e| bad(&e))?;
    Ok(Certificate {
        ends: certificate.validity().not_after.to_datetime(),
        serial: certificate.raw_serial_as_string(),
    })
}
