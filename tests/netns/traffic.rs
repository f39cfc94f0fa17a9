//! A client that opens a TLS connection through the VIP every 20 ms, whatever became of those before.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};

use crate::world::World;

const EVERY: Duration = Duration::from_millis(20);
/// After which a request has failed. Longer than TCP's first retransmission would hide what was lost.
const DEADLINE: Duration = Duration::from_secs(1);

type Answers = Arc<Mutex<Vec<(Instant, bool)>>>;

pub struct Traffic {
    stop: Arc<AtomicBool>,
    answers: Answers,
    start: Instant,
    thread: JoinHandle<()>,
}

/// What became of the requests.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub asked: usize,
    pub failed: usize,
    /// The longest time without an answer.
    pub silence: Duration,
}

impl Traffic {
    pub fn start(world: &World, client: &str) -> Self {
        let vip = world.cluster.endpoint.vip.unwrap().address;
        let address = SocketAddr::from((vip, world.cluster.endpoint.port));
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(world.secrets.ca.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Every connection shakes hands in full, as a new client's does.
        config.resumption = rustls::client::Resumption::disabled();
        let (config, stop, answers) = (Arc::new(config), Arc::<AtomicBool>::default(), Answers::default());
        let start = Instant::now();
        let thread = world.inside(client, || {
            let (stop, answers) = (stop.clone(), answers.clone());
            // A thread stays in the network namespace of the one that made it.
            std::thread::spawn(move || run(address, vip, &config, &stop, &answers))
        });
        Self { stop, answers, start, thread }
    }

    /// Waits until the last requests have had their time, and says what became of all.
    pub fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let end = Instant::now();
        self.thread.join().unwrap();
        let mut answers = std::mem::take(&mut *self.answers.lock().unwrap());
        answers.sort();
        let mut last = self.start;
        let mut silence = Duration::ZERO;
        for at in answers.iter().filter(|(_, good)| *good).map(|(at, _)| *at).chain([end]) {
            silence = silence.max(at.saturating_duration_since(last));
            last = at;
        }
        let failed = answers.iter().filter(|(_, good)| !good).count();
        Seen { asked: answers.len(), failed, silence }
    }

    /// Whether requests are answered, and none has failed for this long.
    #[allow(dead_code, reason = "the bench needs it")]
    pub fn calm_for(&self, long: Duration) -> bool {
        let answers = self.answers.lock().unwrap();
        let last = |good: bool| answers.iter().filter(|(_, g)| *g == good).map(|(at, _)| at.elapsed()).min();
        last(true).is_some_and(|ago| ago < EVERY * 10) && last(false).is_none_or(|ago| ago > long)
    }
}

fn run(
    address: SocketAddr,
    name: Ipv4Addr,
    config: &Arc<ClientConfig>,
    stop: &AtomicBool,
    answers: &Answers,
) {
    let mut requests = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let next = Instant::now() + EVERY;
        let (config, answers) = (config.clone(), answers.clone());
        requests.push(std::thread::spawn(move || {
            let good = request(address, name, config).is_ok();
            answers.lock().unwrap().push((Instant::now(), good));
        }));
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    for request in requests {
        request.join().unwrap();
    }
}

fn request(address: SocketAddr, name: Ipv4Addr, config: Arc<ClientConfig>) -> std::io::Result<()> {
    let end = Instant::now() + DEADLINE;
    let mut socket = TcpStream::connect_timeout(&address, DEADLINE)?;
    let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    socket.set_read_timeout(Some(left))?;
    let mut tls = ClientConnection::new(config, ServerName::from(std::net::IpAddr::from(name)))
        .map_err(std::io::Error::other)?;
    let mut stream = Stream::new(&mut tls, &mut socket);
    stream.write_all(b"GET /whoami HTTP/1.0\r\n\r\n")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    if &answer[8..] == b" 200" { Ok(()) } else { Err(std::io::Error::other("no 200")) }
}
