//! The one narrow trait that all effects on a node stand behind.

mod complaint;
pub mod fake;
pub mod link;
pub mod linux;

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use time::OffsetDateTime;

pub use complaint::complaint;

use crate::kube::{Credentials, KubeError, Request, Server};

/// A command with a deadline. Secrets never stand in `args`: every user of the machine can read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub program: String,
    pub args: Vec<String>,
    pub timeout: Duration,
    /// Whether it only looks. The fake host counts and refuses effects, not looks.
    pub query: bool,
}

impl Command {
    pub fn new<S: Into<String>>(program: &str, args: impl IntoIterator<Item = S>) -> Self {
        Self {
            program: program.to_owned(),
            args: args.into_iter().map(Into::into).collect(),
            timeout: Duration::from_secs(60),
            query: false,
        }
    }

    pub fn query<S: Into<String>>(program: &str, args: impl IntoIterator<Item = S>) -> Self {
        Self { query: true, ..Self::new(program, args) }
    }

    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program)?;
        for arg in &self.args {
            write!(f, " {arg}")?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
}

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("`{command}` cannot be started: {source}")]
    Start { command: String, source: io::Error },
    #[error("`{command}` did not end within {} s{}", seconds, tail(.output))]
    Timeout { command: String, seconds: u64, output: Output },
    #[error("`{command}` was ended{}", tail(.output))]
    Ended { command: String, output: Output },
    #[error("`{command}` failed ({status}){}", tail(.output))]
    Failed { command: String, status: String, output: Output },
}

impl CommandError {
    pub fn output(&self) -> Option<&Output> {
        match self {
            Self::Start { .. } => None,
            Self::Timeout { output, .. } | Self::Ended { output, .. } | Self::Failed { output, .. } => {
                Some(output)
            }
        }
    }
}

/// What a failed command said was wrong, behind a colon.
fn tail(output: &Output) -> String {
    let said = complaint(output);
    if said.is_empty() { said } else { format!(": {said}") }
}

/// One moment by both clocks of a machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clock {
    /// Seconds since the epoch.
    pub at: f64,
    /// Seconds since the kernel's start.
    pub up: f64,
}

/// What the agent does to the machine it runs on, and to nothing else.
pub trait Host {
    /// The content of a file; `None` if there is no such file.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;
    /// The same, but not more than the first bytes of it.
    fn read_start(&self, path: &Path, most: usize) -> io::Result<Option<Vec<u8>>> {
        let mut content = self.read(path)?;
        content.iter_mut().for_each(|bytes| bytes.truncate(most));
        Ok(content)
    }
    /// The permission bits of a file; `None` if there is no such file.
    fn mode(&self, path: &Path) -> io::Result<Option<u32>>;
    /// The names in a folder, sorted; empty if there is no such folder.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    fn hostname(&self) -> String;

    /// Writes a file atomically and durably: temporary file in the same folder with the mode set,
    /// fsync, rename, fsync of the folder. Makes missing folders (0755).
    fn write(&self, path: &Path, content: &[u8], mode: u32) -> io::Result<()>;
    /// Writes into a file of /proc or /sys, which can be neither renamed nor synced.
    fn write_kernel(&self, path: &Path, value: &str) -> io::Result<()>;
    /// Removes a file or a whole folder; nothing if there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn set_hostname(&self, name: &str) -> io::Result<()>;
    fn run(&self, command: &Command) -> Result<Output, CommandError>;

    /// As [`Host::run`]; `meanwhile` is called every so often while the command runs, and ends it by a break.
    fn run_watched(
        &self,
        command: &Command,
        every: Duration,
        meanwhile: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Output, CommandError>;
    /// Everything that was written by anybody is on stable storage afterwards.
    fn sync(&self);

    /// A request to an API server, or to etcd's JSON gateway.
    fn request(
        &self,
        server: &Server,
        credentials: &Credentials,
        request: &Request<'_>,
        timeout: Duration,
    ) -> Result<String, KubeError>;
    fn get(
        &self,
        server: &Server,
        credentials: &Credentials,
        path: &str,
        timeout: Duration,
    ) -> Result<String, KubeError> {
        self.request(server, credentials, &Request::get(path), timeout)
    }
    /// The IPv4 addresses of a name.
    fn resolve(&self, name: &str) -> io::Result<Vec<std::net::Ipv4Addr>>;

    /// Processor seconds and the most resident MiB of this process, its children not counted.
    fn usage(&self) -> (f64, f64);
    /// Time since an arbitrary start; never goes back.
    fn now(&self) -> Duration;
    /// Seconds since the epoch.
    fn wall_clock(&self) -> u64;
    fn clock(&self) -> Clock {
        Clock { at: self.wall_clock() as f64, up: self.now().as_secs_f64() }
    }
    fn sleep(&self, duration: Duration);
    /// A random number in 0..1, for jitter.
    fn random(&self) -> f64;

    /// Who on a link holds some addresses, and who speaks VRRP there; takes three seconds.
    fn ask_link(&self, interface: &str, addresses: &[std::net::Ipv4Addr]) -> io::Result<link::Heard>;
}

/// The host's clock as a date, for certificates and the API's times.
pub fn date(host: &dyn Host) -> OffsetDateTime {
    i64::try_from(host.wall_clock())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// The text of a file, or `None` if it is missing or not UTF-8.
pub fn read_text(host: &dyn Host, path: impl AsRef<Path>) -> Option<String> {
    host.read(path.as_ref()).ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok())
}

pub fn exists(host: &dyn Host, path: impl AsRef<Path>) -> bool {
    host.mode(path.as_ref()).ok().flatten().is_some()
}
