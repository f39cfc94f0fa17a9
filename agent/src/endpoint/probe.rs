//! One check of what this machine has to offer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Check;
use super::health::{Outcome, Rules};
use crate::kube::{Credentials, Kube, KubeError, Server};
use crate::render::HEALTH_PATH;

/// Who gets on this much later than it wanted shares its machine with too many, or was stopped.
const OWN_DELAY: Duration = Duration::from_millis(20);

/// 0 would mean no deadline at all.
const LEAST: Duration = Duration::from_millis(1);

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
        match &self.target {
            Target::Proxy(address) => proxy(*address, self.rules.deadline),
            Target::ApiServer(kube) => {
                let start = Instant::now();
                let late = || {
                    start - begin > self.rules.pause + OWN_DELAY
                        || start.elapsed() > self.rules.deadline + OWN_DELAY
                };
                match api_server(kube) {
                    Outcome::Silent if late() => Outcome::Late,
                    outcome => outcome,
                }
            }
        }
    }
}

/// HTTP/1.0 on loopback; the first line of the answer is enough.
fn proxy(address: SocketAddr, deadline: Duration) -> Outcome {
    let start = Instant::now();
    let mut stream = None;
    let mut outcome = judge(ask(&mut stream, address, deadline));
    if outcome == Outcome::Silent && start.elapsed() > deadline + OWN_DELAY {
        // The proxy may have been stopped as this process was. A millisecond is enough for it, so a busy machine, where
        // every look is late, does not hide one that is frozen.
        let (again, start) = (deadline / 6, Instant::now());
        outcome = judge(stream.as_mut().map_or_else(|| ask(&mut None, address, again), |s| answer(s, again)));
        if outcome == Outcome::Silent && start.elapsed() > again * 2 {
            outcome = Outcome::Late;
        }
    }
    outcome
}

/// The connection stays in `stream`, where an answer may come in later.
fn ask(stream: &mut Option<TcpStream>, address: SocketAddr, deadline: Duration) -> io::Result<[u8; 12]> {
    let end = Instant::now() + deadline;
    let stream = stream.insert(TcpStream::connect_timeout(&address, deadline)?);
    let left = end.saturating_duration_since(Instant::now());
    stream.set_write_timeout(Some(left.max(LEAST)))?;
    write!(stream, "GET {HEALTH_PATH} HTTP/1.0\r\n\r\n")?;
    answer(stream, left)
}

fn answer(stream: &mut TcpStream, deadline: Duration) -> io::Result<[u8; 12]> {
    // A socket's own timeout ends up to 36 ms late on a kernel of 250 Hz (its timer wheel), which looks like a busy
    // machine; poll(2) has a finer clock.
    let deadline = deadline.max(LEAST);
    let patience = PollTimeout::try_from(deadline).map_err(io::Error::other)?;
    if poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLIN)], patience)? == 0 {
        return Err(ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(deadline))?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn judge(answer: io::Result<[u8; 12]>) -> Outcome {
    match answer {
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// One after the other: where a look ends decides when the next one does.
    #[test]
    fn a_frozen_proxy_is_no_busy_machine() {
        let frozen = TcpListener::bind("127.0.0.1:0").unwrap();
        let rules = Rules::of(Check::Proxy);
        let probe = Probe::new(Check::Proxy, frozen.local_addr().unwrap(), rules, "").unwrap();
        for _ in 0..4 {
            assert_eq!(probe.ask(), Outcome::Silent);
        }
    }
}
