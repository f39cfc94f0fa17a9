//! The API server: TLS under the cluster's CA, and the answers of an API that comes up.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kindling::cluster::Secrets;
use kindling::cluster::pki::{Leaf, issue};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

/// After power-on.
#[derive(Clone, Copy)]
pub struct Timeline {
    /// It answers, but does not know the bootstrap token.
    pub answers: Duration,
    /// It knows the token, and kubeadm's configuration is there.
    pub knows: Duration,
    /// Before it answers, connections are taken and closed instead of refused.
    pub closes: bool,
}

/// Its certificate and key.
pub struct Identity(Arc<ServerConfig>);

impl Identity {
    pub fn new(secrets: &Secrets) -> Self {
        let leaf = Leaf {
            common_name: "kube-apiserver",
            organization: None,
            names: &[Ipv4Addr::LOCALHOST.to_string()],
            server: true,
            life: time::Duration::days(1),
        };
        let pair = issue(&secrets.ca, &leaf, time::OffsetDateTime::now_utc()).expect("the CA can sign");
        let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("just made");
        let key = PrivateKeyDer::from_pem_slice(pair.key.expose().as_bytes()).expect("just made");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("the key is the certificate's");
        Self(Arc::new(config))
    }
}

pub struct Api {
    pub address: SocketAddr,
    /// When each request came, since power-on.
    pub requests: Arc<Mutex<Vec<Duration>>>,
    identity: Identity,
    timeline: Timeline,
    socket: Socket,
}

impl Api {
    /// Takes a port. Until it listens there, connections are refused.
    pub fn bind(identity: Identity, timeline: Timeline) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let address = socket.local_addr()?.as_socket().expect("it was bound to one");
        Ok(Self { address, requests: Arc::default(), identity, timeline, socket })
    }

    /// Serves from now on, in threads that end with the program.
    pub fn serve(self, power_on: Instant) {
        thread::spawn(move || {
            if !self.timeline.closes {
                thread::sleep(self.timeline.answers.saturating_sub(power_on.elapsed()));
            }
            // As many as a server in Go lets wait.
            self.socket.listen(4096).expect("a bound socket can listen");
            let listener = TcpListener::from(self.socket);
            while let Ok((stream, _)) = listener.accept() {
                if power_on.elapsed() < self.timeline.answers {
                    continue;
                }
                let connection = Connection {
                    tls: self.identity.0.clone(),
                    requests: self.requests.clone(),
                    timeline: self.timeline,
                    power_on,
                };
                // A client that goes away takes only its own connection with it.
                thread::spawn(move || drop(connection.serve(stream)));
            }
        });
    }
}

struct Connection {
    tls: Arc<ServerConfig>,
    requests: Arc<Mutex<Vec<Duration>>>,
    timeline: Timeline,
    power_on: Instant,
}

impl Connection {
    fn serve(self, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let tls = ServerConnection::new(self.tls.clone()).map_err(io::Error::other)?;
        let mut stream = BufReader::new(StreamOwned::new(tls, stream));
        loop {
            let mut first = String::new();
            if stream.read_line(&mut first)? == 0 {
                return Ok(());
            }
            let mut header = String::new();
            while header != "\r\n" {
                header.clear();
                if stream.read_line(&mut header)? == 0 {
                    return Ok(());
                }
            }
            let at = self.power_on.elapsed();
            self.requests.lock().expect("no holder panicked").push(at);
            let path = first.split(' ').nth(1).unwrap_or_default();
            let (status, body) = match path {
                _ if at < self.timeline.knows => {
                    ("401 Unauthorized", r#"{"kind":"Status","message":"Unauthorized"}"#)
                }
                _ if path.ends_with("/kubeadm-config") => ("200 OK", r#"{"kind":"ConfigMap"}"#),
                _ => ("404 Not Found", r#"{"kind":"Status","message":"not found"}"#),
            };
            let length = body.len();
            write!(
                stream.get_mut(),
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            )?;
            stream.get_mut().flush()?;
        }
    }
}
