//! `kindling forward`: 127.0.0.1:PORT on the host, and from there into a network namespace. It lives in a
//! process of its own that goes on after `kindling up` has ended.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use super::UpError;
use super::process::{self, Daemon, Owner};
use super::state::Place;
use super::tools::text;

/// Connections at the same time; one more waits in the kernel's queue.
const MOST: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    pub listen: SocketAddr,
    pub to: SocketAddr,
    /// The network namespace from which connections are made.
    pub netns: PathBuf,
}

impl Forward {
    /// The arguments of `kindling`: `forward --listen A:P --to A:P --netns PATH`.
    pub fn args(&self) -> Vec<String> {
        let words =
            ["forward", "--listen", &self.listen.to_string(), "--to", &self.to.to_string(), "--netns"];
        words.into_iter().map(str::to_owned).chain([text(&self.netns)]).collect()
    }

    /// Serves until the process is killed.
    pub fn run(&self) -> io::Result<()> {
        let listener = TcpListener::bind(self.listen)?;
        let netns = Arc::new(File::open(&self.netns)?);
        let open = Arc::new(AtomicUsize::new(0));
        loop {
            let client = match listener.accept() {
                Ok((client, _)) => client,
                // A client that went away before it was accepted, or no file descriptor for a moment.
                Err(_) => {
                    std::thread::sleep(Duration::from_millis(50));
                    continue;
                }
            };
            while open.load(Ordering::Acquire) >= MOST {
                std::thread::sleep(Duration::from_millis(20));
            }
            open.fetch_add(1, Ordering::AcqRel);
            let (netns, done, to) = (Arc::clone(&netns), Arc::clone(&open), self.to);
            let thread = std::thread::Builder::new().stack_size(64 << 10).spawn(move || {
                // A peer that ends a connection is no error of ours.
                let _ = serve(client, &netns, to);
                done.fetch_sub(1, Ordering::AcqRel);
            });
            if thread.is_err() {
                open.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}

fn serve(client: TcpStream, netns: &File, to: SocketAddr) -> io::Result<()> {
    // Of this thread alone; a socket stays in the namespace that it was made in.
    setns(netns, CloneFlags::CLONE_NEWNET)?;
    let server = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (upward, upstream) = (client.try_clone()?, server.try_clone()?);
    let other = std::thread::Builder::new().stack_size(64 << 10).spawn(move || copy(upward, upstream))?;
    copy(server, client);
    let _ = other.join();
    Ok(())
}

/// Until one side ends or breaks.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

/// Starts it in the background, unless it runs; returns when it listens.
pub fn start(place: &Place, program: &Path, forward: &Forward) -> Result<(), UpError> {
    let log = place.root().join("forward.log");
    if process::find(place, Owner::Forwarder).is_empty() {
        port_is_free(forward.listen)?;
        let mut args = vec![text(program)];
        args.extend(forward.args());
        let daemon = Daemon { args, folder: place.root().into(), stdout: log.clone(), stderr: log.clone() };
        process::start(place, Owner::Forwarder, &daemon)?;
    }
    wait_until_it_listens(place, forward.listen, &log)
}

pub fn wait_until_it_listens(place: &Place, listen: SocketAddr, log: &Path) -> Result<(), UpError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if TcpStream::connect_timeout(&listen, Duration::from_secs(1)).is_ok() {
            return Ok(());
        }
        if process::is_gone(place, Owner::Forwarder) || Instant::now() >= deadline {
            return Err(UpError::new(
                format!("nothing listens on {listen}: {}", process::tail(log, 3).join(" ")),
                "read the message above; if the port is taken, choose another one with --port",
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Or somebody else would answer there, and be taken for ours.
pub fn port_is_free(listen: SocketAddr) -> Result<(), UpError> {
    TcpListener::bind(listen).map(drop).map_err(|error| {
        UpError::new(
            format!("cannot listen on {listen}: {error}"),
            "end what listens there, or choose another port with --port",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_started_by_these_arguments() {
        let forward = Forward {
            listen: ([127, 0, 0, 1], 40001).into(),
            to: ([10, 0, 0, 10], 6443).into(),
            netns: "/run/netns/kindling-ab12cd".into(),
        };
        assert_eq!(
            forward.args().join(" "),
            "forward --listen 127.0.0.1:40001 --to 10.0.0.10:6443 --netns /run/netns/kindling-ab12cd"
        );
    }
}
