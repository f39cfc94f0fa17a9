//! The waiting room: while its agent runs, a control plane tells the others whether its disk knows a cluster, and
//! so does a member of an external etcd.
//!
//! Where all machines are powered on at once and the first control plane's disk is a new one, nobody answers yet
//! and the first would make a second cluster of the same name. So it does not take silence for an answer: it
//! asks the agent of each of its peers, which answers within a second of its start.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use time::OffsetDateTime;

use crate::cluster::pki::{self, Leaf, Pair};
use crate::host::{Host, date};
use crate::kube::{Credentials, KubeError, Server};
use crate::role::{NodeSpec, Role};
use crate::step::{etcd_log, kubeadm};

/// Beside the API server's own.
pub const PORT: u16 = 6442;
const PATH: &str = "/kindling";
/// The two answers.
pub const FRESH: &str = "fresh\n";
pub const MEMBER: &str = "member\n";
const TIMEOUT: Duration = Duration::from_secs(2);

/// What a machine's agent says of its disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Peer {
    /// It has never been in a cluster.
    #[default]
    Fresh,
    /// It has data of the cluster, whose API answers before long.
    Member,
    /// Off, or without an agent that runs.
    Silent,
}

/// `ca` is the cluster's for a control plane, etcd's for its members.
pub fn ask(host: &dyn Host, ca: &str, peer: Ipv4Addr) -> Peer {
    let server = Server::at(ca, peer, PORT);
    match host.get(&server, &Credentials::Anonymous, PATH, TIMEOUT) {
        Ok(text) if text == FRESH => Peer::Fresh,
        Ok(_) | Err(KubeError::Status { .. }) => Peer::Member,
        Err(_) => Peer::Silent,
    }
}

/// Whether this machine is asked: then who vouches for its answer, and what only a cluster leaves on its disk.
fn asked(spec: &NodeSpec) -> Option<(Pair, &'static [&'static str])> {
    match &spec.role {
        Role::ControlPlane(role) => Some((spec.authority(role), kubeadm::TRACES)),
        Role::Etcd(role) => Some((role.authority(), &[etcd_log::WAL])),
        Role::Worker(_) | Role::LoadBalancer(_) => None,
    }
}

pub fn is_open_on(spec: &NodeSpec) -> bool {
    asked(spec).is_some()
}

/// Answers from now on, in a thread, until this process ends. The machine's files are below `root`.
pub fn open(host: &dyn Host, spec: &NodeSpec, root: &Path) -> io::Result<()> {
    let Some((authority, traces)) = asked(spec) else {
        return Ok(());
    };
    let traces: Vec<PathBuf> = traces.iter().map(|path| root.join(path.trim_start_matches('/'))).collect();
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    let config = Arc::new(config(host, spec, &authority).map_err(io::Error::other)?);
    std::thread::Builder::new().name("waiting-room".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever asks badly gets no answer, and is no trouble of ours.
            let _ = answer(stream, &config, &traces);
        }
    })?;
    Ok(())
}

fn config(host: &dyn Host, spec: &NodeSpec, authority: &Pair) -> Result<ServerConfig, String> {
    let names = [spec.address().to_string()];
    let leaf = Leaf {
        common_name: spec.name.as_str(),
        organization: None,
        names: &names,
        server: true,
        life: time::Duration::days(1),
    };
    server_config(authority, &leaf, date(host))
}

/// Of a server that shows a certificate of `ca`, made for it now.
pub fn server_config(ca: &Pair, leaf: &Leaf<'_>, now: OffsetDateTime) -> Result<ServerConfig, String> {
    let pair = pki::issue(ca, leaf, now).map_err(|e| e.to_string())?;
    let certificate =
        CertificateDer::from_pem_slice(pair.certificate.as_bytes()).map_err(|e| e.to_string())?;
    // The error may quote the key, so it is not passed on.
    let key = PrivateKeyDer::from_pem_slice(pair.key.expose().as_bytes())
        .map_err(|_| "the key cannot be read back".to_owned())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key))
        .map_err(|e| e.to_string())
}

fn answer(stream: TcpStream, config: &Arc<ServerConfig>, traces: &[PathBuf]) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    // One request, of which only that it is there matters.
    let mut request = [0; 4096];
    if stream.read(&mut request)? == 0 {
        return Ok(());
    }
    let body = if traces.iter().any(|path| path.exists()) { MEMBER } else { FRESH };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.conn.send_close_notify();
    stream.flush()
}
