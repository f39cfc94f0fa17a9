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

/// A busy API server is asked less often: so many times as long passes as its last answer took, and no longer than
/// [`LONGEST_PAUSE`]. Each answer also costs a read that etcd's members agree upon.
const REST: u32 = 20;
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub struct Probe {
    rules: Rules,
    target: Target,
    pause: Duration,
    /// How many checks in a row nobody answered.
    silent: u32,
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
                Target::ApiServer(Box::new(Kube::new(server, Credentials::Anonymous, rules.patience)?))
            }
            _ => Target::Proxy(address),
        };
        Ok(Self { rules, target, pause: rules.pause, silent: 0 })
    }

    /// Pauses, then asks.
    pub fn ask(&mut self) -> Outcome {
        let begin = Instant::now();
        std::thread::sleep(self.pause);
        match &self.target {
            Target::Proxy(address) => proxy(*address, self.rules.deadline),
            Target::ApiServer(kube) => {
                let decided = self.silent >= self.rules.decided();
                let deadline = if decided { self.rules.patience } else { self.rules.deadline };
                let start = Instant::now();
                let outcome = api_server(kube, deadline);
                let took = start.elapsed();
                let late = start - begin > self.pause + OWN_DELAY || took > deadline + OWN_DELAY;
                if outcome != Outcome::Silent {
                    self.silent = 0;
                    // Who refuses has nothing to do, however long this machine took to hear of it.
                    let rest = if outcome == Outcome::Refused { Duration::ZERO } else { took * REST };
                    self.pause = rest.clamp(self.rules.pause, LONGEST_PAUSE);
                    return outcome;
                }
                self.silent = self.silent.saturating_add(1);
                self.pause = self.rules.pause;
                if late { Outcome::Late } else { Outcome::Silent }
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

fn api_server(kube: &Kube, deadline: Duration) -> Outcome {
    match kube.get_within("/readyz", deadline) {
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
    use std::sync::Arc;

    use rustls::{ServerConnection, StreamOwned};
    use time::OffsetDateTime;

    use super::*;
    use crate::cluster::pki::{Leaf, authority};
    use crate::room::server_config;

    /// One after the other: where a look ends decides when the next one does.
    #[test]
    fn a_frozen_proxy_is_no_busy_machine() {
        let frozen = TcpListener::bind("127.0.0.1:0").unwrap();
        let rules = Rules::of(Check::Proxy);
        let mut seen = Vec::new();
        // Once in some trials in which nothing kept this very process from its looks.
        for _ in 0..30 {
            let mut probe = Probe::new(Check::Proxy, frozen.local_addr().unwrap(), rules, "").unwrap();
            seen = (0..4).map(|_| probe.ask()).collect();
            if !seen.contains(&Outcome::Late) {
                break;
            }
        }
        assert_eq!(seen, [Outcome::Silent; 4]);
    }

    /// On an emulated or starved machine: every handshake takes its time, also of a client that is gone.
    fn busy_server(handshake: Duration) -> (SocketAddr, String) {
        let ca = authority("kubernetes", OffsetDateTime::now_utc()).unwrap();
        let names = ["127.0.0.1".to_owned()];
        let life = time::Duration::days(1);
        let leaf =
            Leaf { common_name: "kube-apiserver", organization: None, names: &names, server: true, life };
        let config = Arc::new(server_config(&ca, &leaf, OffsetDateTime::now_utc()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::thread::sleep(handshake);
                let mut stream =
                    StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream.unwrap());
                while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                }
            }
        });
        (address, ca.certificate)
    }

    #[test]
    fn an_api_server_whose_handshakes_take_seconds_is_reached_in_the_end_and_kept() {
        let rules = Rules::of(Check::ApiServer);
        let decided = rules.decided() as usize;
        let (address, ca) = busy_server(Duration::from_millis(2500));
        let mut probe = Probe::new(Check::ApiServer, address, rules, &ca).unwrap();
        let seen: Vec<Outcome> = (0..decided + 2).map(|_| probe.ask()).collect();
        // On a busy machine this process was late itself, and heard nothing either.
        let unheard = |outcome: &Outcome| matches!(outcome, Outcome::Silent | Outcome::Late);
        assert!(seen[..decided].iter().all(unheard), "{seen:?}");
        // The second one has two seconds again, too few for a handshake: the connection was kept.
        assert_eq!(seen[decided..], [Outcome::Healthy; 2]);
    }

    #[test]
    fn a_busy_api_server_is_asked_less_often_and_at_once_when_it_refuses() {
        let (address, ca) = busy_server(Duration::from_millis(100));
        let rules = Rules::of(Check::ApiServer);
        let mut probe = Probe::new(Check::ApiServer, address, rules, &ca).unwrap();
        assert_eq!(probe.ask(), Outcome::Healthy);
        assert_eq!(probe.pause, LONGEST_PAUSE);
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut probe = Probe::new(Check::ApiServer, nobody, rules, &ca).unwrap();
        probe.pause = Duration::from_millis(600);
        assert_eq!(probe.ask(), Outcome::Refused);
        assert_eq!(probe.pause, rules.pause);
    }
}
