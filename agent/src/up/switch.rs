//! `kindling switch`: the Ethernet switch between QEMU's machines, a process of its own that goes on after
//! `kindling up` has ended. It listens on a unix socket for each machine, `0.sock` and on, and on `host.sock`
//! for the way to the host, and speaks the framing of QEMU's `-netdev stream`: four bytes of length (big
//! endian), then the frame.
//!
//! Not a hub of QEMU's: slirp (`-netdev user`) takes every IP packet that it sees for its own, whoever it is
//! addressed to, and with `restrict=on` answers TCP between two machines with a reset.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::tools::text;

/// As QEMU's NET_BUFSIZE: no frame is longer.
const LONGEST: usize = 4096 + 65536;
/// Frames that wait for a machine that does not read; more are lost, as on a cable.
const QUEUE: usize = 1024;
const ARP: [u8; 2] = [0x08, 0x06];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// Where the sockets are.
    pub folder: PathBuf,
    pub machines: usize,
}

type Frame = Arc<[u8]>;
type Mac = [u8; 6];

/// Which port a frame goes to, learned from where others came from. The last port is the host's.
#[derive(Debug)]
struct Table {
    machines: usize,
    ports: HashMap<Mac, usize>,
}

impl Table {
    fn new(machines: usize) -> Self {
        Self { machines, ports: HashMap::new() }
    }

    fn ports_for(&mut self, from: usize, frame: &[u8]) -> Vec<usize> {
        let (Some(to), Some(source), Some(kind)) = (mac(frame, 0), mac(frame, 6), frame.get(12..14)) else {
            return Vec::new();
        };
        let is_group = |mac: Mac| mac[0] & 1 == 1;
        if !is_group(source) {
            self.ports.insert(source, from);
        }
        if let Some(port) = self.ports.get(&to) {
            return [*port].into_iter().filter(|port| *port != from).collect();
        }
        // The host's port gets what is for it, and the question who has its address; nothing else.
        let with_host = is_group(to) && kind == ARP;
        (0..self.machines + usize::from(with_host)).filter(|port| *port != from).collect()
    }
}

fn mac(frame: &[u8], at: usize) -> Option<Mac> {
    frame.get(at..at + 6)?.try_into().ok()
}

struct Fabric {
    table: Mutex<Table>,
    /// Of each port that has a machine at its other end.
    queues: Vec<Mutex<Option<SyncSender<Frame>>>>,
}

impl Fabric {
    fn carry(&self, from: usize, frame: &Frame) {
        for port in lock(&self.table).ports_for(from, frame) {
            if let Some(queue) = &*lock(&self.queues[port]) {
                let _ = queue.try_send(Arc::clone(frame));
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is under these locks is whole after each statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Switch {
    /// The arguments of `kindling`: `switch --folder PATH --machines N`.
    pub fn args(&self) -> Vec<String> {
        let words = ["switch", "--folder", &text(&self.folder), "--machines", &self.machines.to_string()];
        words.into_iter().map(str::to_owned).collect()
    }

    /// The socket of a machine, or with `None` of the host.
    pub fn socket(folder: &Path, machine: Option<usize>) -> PathBuf {
        folder.join(machine.map_or("host.sock".to_owned(), |n| format!("{n}.sock")))
    }

    /// Serves until the process is killed.
    pub fn run(&self) -> io::Result<()> {
        let fabric = Fabric {
            table: Mutex::new(Table::new(self.machines)),
            queues: (0..=self.machines).map(|_| Mutex::new(None)).collect(),
        };
        // A unix socket's path may have 108 bytes at most, and the folder's may have more.
        std::env::set_current_dir(&self.folder)?;
        let names = (0..self.machines).map(Some).chain([None]);
        let listeners: Vec<UnixListener> =
            names.map(|name| listen(&Self::socket(Path::new(""), name))).collect::<io::Result<_>>()?;
        std::thread::scope(|scope| {
            for (port, listener) in listeners.iter().enumerate() {
                let fabric = &fabric;
                scope.spawn(move || {
                    // One machine after the other: it is powered off and on again.
                    for stream in listener.incoming().flatten() {
                        let _ = serve(fabric, port, stream);
                        *lock(&fabric.queues[port]) = None;
                    }
                });
            }
        });
        Ok(())
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Until the machine's end of the cable is gone.
fn serve(fabric: &Fabric, port: usize, mut stream: UnixStream) -> io::Result<()> {
    let (sender, queue) = sync_channel(QUEUE);
    let out = stream.try_clone()?;
    std::thread::spawn(move || send(out, &queue));
    *lock(&fabric.queues[port]) = Some(sender);
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut frame = vec![0; length];
        stream.read_exact(&mut frame)?;
        fabric.carry(port, &frame.into());
    }
}

/// Ends when the port's queue is given up or the other end is gone.
fn send(mut stream: UnixStream, queue: &Receiver<Frame>) {
    for frame in queue {
        let Ok(length) = u32::try_from(frame.len()) else { continue };
        // In one write: a system call a frame is what this costs.
        let bytes = [&length.to_be_bytes()[..], &frame].concat();
        if stream.write_all(&bytes).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = [0x52, 0x54, 0, 0, 0, 1];
    const B: Mac = [0x52, 0x54, 0, 0, 0, 2];
    const HOST: Mac = [0x52, 0x55, 10, 0, 0, 2];
    const ALL: Mac = [0xff; 6];
    const IP: [u8; 2] = [0x08, 0x00];

    fn frame(to: Mac, from: Mac, kind: [u8; 2]) -> Vec<u8> {
        [&to[..], &from, &kind, b"payload"].concat()
    }

    #[test]
    fn the_host_gets_only_what_is_for_it() {
        // ports 0 to 2 are machines, 3 is the host
        let mut table = Table::new(3);
        assert_eq!(table.ports_for(0, &frame(ALL, A, ARP)), [1, 2, 3]);
        assert_eq!(table.ports_for(0, &frame(ALL, A, IP)), [1, 2]);
        assert_eq!(table.ports_for(0, &frame([0x01, 0, 0x5e, 0, 0, 0x12], A, IP)), [1, 2]);
        // unknown: every machine, not the host
        assert_eq!(table.ports_for(0, &frame(B, A, IP)), [1, 2]);
        assert_eq!(table.ports_for(1, &frame(A, B, IP)), [0]);
        assert_eq!(table.ports_for(0, &frame(B, A, IP)), [1]);
        assert_eq!(table.ports_for(3, &frame(A, HOST, ARP)), [0]);
        assert_eq!(table.ports_for(0, &frame(HOST, A, IP)), [3]);
        // B's address went to the machine at port 2
        assert_eq!(table.ports_for(2, &frame(ALL, B, ARP)), [0, 1, 3]);
        assert_eq!(table.ports_for(0, &frame(B, A, IP)), [2]);
        // nothing goes back to where it came from, and no stump of a frame goes anywhere
        assert_eq!(table.ports_for(2, &frame(B, A, IP)), Vec::<usize>::new());
        assert_eq!(table.ports_for(0, &A), Vec::<usize>::new());
    }

    #[test]
    fn frames_go_from_socket_to_socket_also_after_a_power_cycle() {
        let fabric: &'static Fabric = Box::leak(Box::new(Fabric {
            table: Mutex::new(Table::new(2)),
            queues: (0..3).map(|_| Mutex::new(None)).collect(),
        }));
        let connect = |port: usize| {
            let (here, there) = UnixStream::pair().expect("a pair");
            std::thread::spawn(move || serve(fabric, port, there));
            while lock(&fabric.queues[port]).is_none() {
                std::thread::yield_now();
            }
            here
        };
        let say = |stream: &mut UnixStream, frame: &[u8]| {
            stream.write_all(&(frame.len() as u32).to_be_bytes()).expect("length");
            stream.write_all(frame).expect("frame");
        };
        let hear = |stream: &mut UnixStream| {
            let mut length = [0; 4];
            stream.read_exact(&mut length).expect("length");
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut frame).expect("frame");
            frame
        };
        let (mut a, mut b) = (connect(0), connect(1));
        say(&mut a, &frame(ALL, A, ARP));
        assert_eq!(hear(&mut b), frame(ALL, A, ARP));
        say(&mut b, &frame(A, B, IP));
        assert_eq!(hear(&mut a), frame(A, B, IP));
        drop(b);
        *lock(&fabric.queues[1]) = None;
        let mut b = connect(1);
        say(&mut a, &frame(B, A, IP));
        assert_eq!(hear(&mut b), frame(B, A, IP));
    }

    #[test]
    fn it_is_started_by_these_arguments() {
        let switch = Switch { folder: "/s/switch".into(), machines: 2 };
        assert_eq!(switch.args().join(" "), "switch --folder /s/switch --machines 2");
    }
}
