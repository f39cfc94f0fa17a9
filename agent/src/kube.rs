//! A small client for the Kubernetes API: only the cluster's CA is trusted, the address is given (no
//! resolver is asked), and every request has a deadline.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::blocking::Client;
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;

/// Who asks.
#[derive(Clone, Debug)]
pub enum Credentials {
    Anonymous,
    /// A bootstrap token.
    Bearer(crate::role::types::Secret),
    /// A client certificate and its key in one PEM text.
    Certificate(crate::role::types::Secret),
}

/// What is asked of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Put,
    /// A JSON merge patch (RFC 7396).
    Patch,
    Delete,
}

/// A request with a body in JSON, or none.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: Method,
    pub path: &'a str,
    pub body: Option<&'a Value>,
}

impl<'a> Request<'a> {
    pub fn get(path: &'a str) -> Self {
        Self { method: Method::Get, path, body: None }
    }
}

/// One API server, or whatever answers in its place.
#[derive(Clone, Debug)]
pub struct Server {
    /// The CA's certificate, PEM.
    pub ca: String,
    /// Where to connect to.
    pub address: SocketAddr,
    /// The name that the server's certificate must hold; the address itself where `None`.
    pub name: Option<String>,
}

impl Server {
    pub fn at(ca: &str, ip: Ipv4Addr, port: u16) -> Self {
        Self { ca: ca.to_owned(), address: SocketAddr::from((ip, port)), name: None }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// Nobody answers there (yet).
    #[error("{address} does not answer: {reason}")]
    Unreachable { address: SocketAddr, reason: String, timed_out: bool },
    /// Somebody answers, but not with a certificate of this cluster's CA.
    #[error("{address} does not belong to this cluster: {reason}")]
    Untrusted { address: SocketAddr, reason: String },
    /// Whose it is cannot be told: its certificate is not valid at this machine's time.
    #[error("the certificate of {address} is not valid at this machine's time: {reason}")]
    Clock { address: SocketAddr, reason: String },
    #[error("{address} answered {status} to {path}: {message}")]
    Status { address: SocketAddr, status: u16, path: String, message: String },
    #[error("{0}")]
    Client(String),
}

impl KubeError {
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Nobody was there to be bothered by the request: it was refused, or taken and closed by a load balancer that
    /// has no server. One that only answers too slowly is there.
    pub fn reached_nobody(&self) -> bool {
        matches!(self, Self::Unreachable { timed_out: false, .. })
    }
}

pub struct Kube {
    client: Client,
    server: Server,
    bearer: Option<crate::role::types::Secret>,
}

impl Kube {
    /// `timeout` bounds each request as a whole; the connection alone has half of it.
    pub fn new(server: Server, credentials: Credentials, timeout: Duration) -> Result<Self, KubeError> {
        let broken = |error: reqwest::Error| KubeError::Client(chain(&error));
        let ca = reqwest::Certificate::from_pem(server.ca.as_bytes()).map_err(broken)?;
        let mut builder = Client::builder()
            .tls_certs_only([ca])
            .no_proxy()
            .connect_timeout(timeout / 2)
            .timeout(timeout)
            .user_agent(concat!("kindling/", env!("CARGO_PKG_VERSION")));
        if let Some(name) = &server.name {
            builder = builder.resolve(name, server.address);
        }
        let mut bearer = None;
        match credentials {
            Credentials::Anonymous => {}
            Credentials::Bearer(token) => bearer = Some(token),
            Credentials::Certificate(pem) => {
                // reqwest's own error may quote the PEM, so it is not passed on
                let identity = reqwest::Identity::from_pem(pem.expose().as_bytes()).map_err(|_| {
                    KubeError::Client("the client certificate or its key cannot be read".into())
                })?;
                builder = builder.identity(identity);
            }
        }
        Ok(Self { client: builder.build().map_err(broken)?, server, bearer })
    }

    fn url(&self, path: &str) -> String {
        match &self.server.name {
            Some(name) => format!("https://{name}:{}{path}", self.server.address.port()),
            None => format!("https://{}{path}", self.server.address),
        }
    }

    pub fn get(&self, path: &str) -> Result<String, KubeError> {
        self.send(&Request::get(path))
    }

    /// Within another time than that of all requests. The connection is the same.
    pub fn get_within(&self, path: &str, timeout: Duration) -> Result<String, KubeError> {
        self.send_within(&Request::get(path), Some(timeout))
    }

    /// The body of a 2xx answer.
    pub fn send(&self, what: &Request<'_>) -> Result<String, KubeError> {
        self.send_within(what, None)
    }

    fn send_within(&self, what: &Request<'_>, timeout: Option<Duration>) -> Result<String, KubeError> {
        let url = self.url(what.path);
        let mut request = match what.method {
            Method::Get => self.client.get(url),
            Method::Post => self.client.post(url),
            Method::Put => self.client.put(url),
            Method::Patch => self.client.patch(url).header(CONTENT_TYPE, "application/merge-patch+json"),
            Method::Delete => self.client.delete(url),
        };
        if let Some(timeout) = timeout {
            request = request.timeout(timeout);
        }
        if let Some(token) = &self.bearer {
            request = request.bearer_auth(token.expose());
        }
        if let Some(body) = what.body {
            request = request.json(body);
        }
        let response = request.send().map_err(|error| self.classify(&error))?;
        let status = response.status();
        let body = response.text().map_err(|error| self.classify(&error))?;
        if status.is_success() {
            return Ok(body);
        }
        let message = serde_json::from_str::<Value>(&body)
            .ok()
            .and_then(|v| v["message"].as_str().map(str::to_owned))
            .unwrap_or_else(|| status.canonical_reason().unwrap_or("").to_owned());
        Err(KubeError::Status {
            address: self.server.address,
            status: status.as_u16(),
            path: what.path.to_owned(),
            message,
        })
    }

    pub fn get_json(&self, path: &str) -> Result<Value, KubeError> {
        let body = self.get(path)?;
        serde_json::from_str(&body).map_err(|error| {
            KubeError::Client(format!(
                "{} answered {path} with something else than JSON: {error}",
                self.server.address
            ))
        })
    }

    /// As [`Kube::get_json`], with `None` for what is not there.
    pub fn find(&self, path: &str) -> Result<Option<Value>, KubeError> {
        match self.get_json(path) {
            Ok(value) => Ok(Some(value)),
            Err(KubeError::Status { status, .. }) if status == StatusCode::NOT_FOUND.as_u16() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn classify(&self, error: &reqwest::Error) -> KubeError {
        let reason = chain(error);
        let address = self.server.address;
        if is_of_another_time(error) {
            KubeError::Clock { address, reason }
        } else if reason.contains("invalid peer certificate") {
            KubeError::Untrusted { address, reason }
        } else {
            KubeError::Unreachable { address, reason, timed_out: error.is_timeout() }
        }
    }
}

/// Whether the server's certificate was refused for its dates.
fn is_of_another_time(error: &reqwest::Error) -> bool {
    use rustls::CertificateError as Why;
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(why)) = error.downcast_ref() {
            return matches!(
                why,
                Why::Expired | Why::ExpiredContext { .. } | Why::NotValidYet | Why::NotValidYetContext { .. }
            );
        }
        // An io::Error, which may stand in another one, names not what it wraps as its source, but that one's.
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}

/// An error with its causes, without the URL that reqwest puts in front.
fn chain(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let text = error.to_string();
        if parts.last() != Some(&text) {
            parts.push(text);
        }
        source = error.source();
    }
    if parts.is_empty() {
        parts.push(if error.is_timeout() { "timed out".into() } else { error.to_string() });
    }
    parts.join(": ")
}

/// The conditions of a Node or a Pod.
pub fn conditions(object: &Value) -> impl Iterator<Item = &Value> {
    object["status"]["conditions"].as_array().into_iter().flatten()
}

/// One of them; null where it is not there.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    conditions(object).find(|c| c["type"] == kind).unwrap_or(&Value::Null)
}

/// Whether a Node object says Ready=True.
pub fn node_is_ready(node: &Value) -> bool {
    condition(node, "Ready")["status"] == "True"
}
