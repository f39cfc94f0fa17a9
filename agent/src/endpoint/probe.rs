//! One check of what this machine has to offer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::Check;
use super::health::{Outcome, Rules};
use crate::kube::{Credentials, Kube, KubeError, Server};
use crate::render::HEALTH_PATH;

/// Who gets on this much later than it wanted shares its machine with too many, or was stopped.
const OWN_DELAY: Duration = Duration::from_millis(20);

pub struct Probe {
    rules: Rules,
    target: Target,
}

enum Target {
    Proxy(SocketAddr),
    ApiServer(Box<Kube>),
}

impl Probe {
    pub fn new(check: Check, address: SocketAddr, rules: Rules, ca: &str) -> Result<Self, KubeError> {
        let target = match (check, address.ip()) {
            (Check::ApiServer, IpAddr::V4(ip)) => {
                let server = Server::at(ca, ip, address.port());
                Target::ApiServer(Box::new(Kube::new(server, Credentials::Anonymous, rules.deadline)?))
            }
            _ => Target::Proxy(address),
        };
        Ok(Self { rules, target })
    }

    /// Pauses, then asks.
    pub fn ask(&self) -> Outcome {
        let begin = Instant::now();
        std::thread::sleep(self.rules.pause);
        let start = Instant::now();
        let outcome = match &self.target {
            Target::Proxy(address) => proxy(*address, self.rules.deadline),
            Target::ApiServer(kube) => api_server(kube),
        };
        let late =
            start - begin > self.rules.pause + OWN_DELAY || start.elapsed() > self.rules.deadline + OWN_DELAY;
        if outcome == Outcome::Silent && late { Outcome::Late } else { outcome }
    }
}

/// HTTP/1.0 on loopback; the first line of the answer is enough.
fn proxy(address: SocketAddr, deadline: Duration) -> Outcome {
    let ask = || -> io::Result<[u8; 12]> {
        let end = Instant::now() + deadline;
        let mut stream = TcpStream::connect_timeout(&address, deadline)?;
        // 0 would mean no deadline at all.
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left))?;
        stream.set_write_timeout(Some(left))?;
        write!(stream, "GET {HEALTH_PATH} HTTP/1.0\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    match ask() {
        Ok(answer) if &answer[8..] == b" 200" => Outcome::Healthy,
        Ok(_) => Outcome::NotReady,
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => Outcome::Silent,
        Err(_) => Outcome::Refused,
    }
}

fn api_server(kube: &Kube) -> Outcome {
    match kube.get("/readyz") {
        Ok(_) => Outcome::Healthy,
        // Whoever forbids strangers to ask has at least answered, with the cluster's certificate.
        Err(KubeError::Status { status: 401 | 403, .. }) => Outcome::Healthy,
        Err(KubeError::Unreachable { reason, .. })
            if reason.contains("timed out") || reason.contains("deadline") =>
        {
            Outcome::Silent
        }
        Err(KubeError::Unreachable { .. }) => Outcome::Refused,
        Err(_) => Outcome::NotReady,
    }
}
