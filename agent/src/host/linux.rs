//! The real host: the only place where the agent changes anything.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::ops::ControlFlow;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, killpg};
use nix::sys::time::TimeVal;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::link::Question;
use super::{Clock, Command, CommandError, Host, Output};
use crate::kube::{Credentials, Kube, KubeError, Request, Server};

/// The least that a command gets where the processor is emulated: `systemctl enable` was seen to take more than a minute on a
/// host that did other things too.
const EMULATED: Duration = Duration::from_secs(300);

pub struct Linux {
    start: Instant,
    asked: Mutex<Option<Question>>,
}

impl Default for Linux {
    fn default() -> Self {
        Self { start: Instant::now(), asked: Mutex::new(None) }
    }
}

impl Linux {
    /// Begins [`Host::ask_link`] now, beside whatever else is done until its answer is wanted.
    pub fn ask_link_ahead(&self, interface: &str, addresses: Vec<Ipv4Addr>) {
        *self.asked.lock().expect("nobody panics with it") = Some(Question::ask(interface, addresses));
    }
}

fn missing_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Writes a file so that after a power cut either the old or the new content is there, whole.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let temporary = folder.join(format!(".{}.kindling", name.to_string_lossy()));
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

impl Host for Linux {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        missing_is_none(fs::read(path))
    }

    fn read_start(&self, path: &Path, most: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = missing_is_none(File::open(path))? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(most as u64).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn mode(&self, path: &Path) -> io::Result<Option<u32>> {
        Ok(missing_is_none(fs::metadata(path))?.map(|m| m.permissions().mode() & 0o7777))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let Some(entries) = missing_is_none(fs::read_dir(path))? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn hostname(&self) -> String {
        nix::unistd::gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn write(&self, path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
        write_atomic(path, content, mode)
    }

    fn write_kernel(&self, path: &Path, value: &str) -> io::Result<()> {
        OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let result = match missing_is_none(fs::symlink_metadata(path))? {
            None => return Ok(()),
            Some(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
            Some(_) => fs::remove_file(path),
        };
        missing_is_none(result).map(|_| ())
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        nix::unistd::sethostname(name).map_err(io::Error::from)
    }

    fn run(&self, command: &Command) -> Result<Output, CommandError> {
        self.run_watched(command, command.timeout, &mut || ControlFlow::Continue(()))
    }

    fn run_watched(
        &self,
        command: &Command,
        every: Duration,
        meanwhile: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Output, CommandError> {
        let text = command.to_string();
        let mut child = process::Command::new(&command.program)
            .args(&command.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env("LC_ALL", "C.UTF-8")
            // A group of its own, so that the deadline ends its children too.
            .process_group(0)
            .spawn()
            .map_err(|source| CommandError::Start { command: text.clone(), source })?;
        let stdout = reader(child.stdout.take());
        let stderr = reader(child.stderr.take());
        let timeout = if crate::emulated::here() { command.timeout.max(EMULATED) } else { command.timeout };
        let deadline = Instant::now() + timeout;
        let mut pause = Duration::from_millis(2);
        let mut next = Instant::now() + every;
        let mut ended = false;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if ended || Instant::now() >= deadline => break None,
                Ok(None) if Instant::now() >= next => {
                    ended = meanwhile().is_break();
                    next = Instant::now() + every;
                }
                Ok(None) => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(100));
                }
                Err(source) => return Err(CommandError::Start { command: text, source }),
            }
        };
        if status.is_none() {
            let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            let _ = child.wait();
        }
        let output = Output { stdout: join(stdout), stderr: join(stderr) };
        match status {
            None if ended => Err(CommandError::Ended { command: text, output }),
            None => Err(CommandError::Timeout { command: text, seconds: timeout.as_secs(), output }),
            Some(status) if status.success() => Ok(output),
            Some(status) => Err(CommandError::Failed { command: text, status: status.to_string(), output }),
        }
    }

    fn sync(&self) {
        nix::unistd::sync();
    }

    fn request(
        &self,
        server: &Server,
        credentials: &Credentials,
        request: &Request<'_>,
        timeout: Duration,
    ) -> Result<String, KubeError> {
        Kube::new(server.clone(), credentials.clone(), timeout)?.send(request)
    }

    fn resolve(&self, name: &str) -> io::Result<Vec<Ipv4Addr>> {
        Ok((name, 0)
            .to_socket_addrs()?
            .filter_map(|address| match address {
                SocketAddr::V4(address) => Some(*address.ip()),
                SocketAddr::V6(_) => None,
            })
            .collect())
    }

    fn usage(&self) -> (f64, f64) {
        getrusage(UsageWho::RUSAGE_SELF).map_or((0.0, 0.0), |usage| {
            let seconds = |t: TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
            // Linux counts ru_maxrss in KiB (getrusage(2)).
            (seconds(usage.user_time()) + seconds(usage.system_time()), usage.max_rss() as f64 / 1024.0)
        })
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall_clock(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
    }

    fn clock(&self) -> Clock {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        // With the seconds in which the machine slept.
        let up = clock_gettime(ClockId::CLOCK_BOOTTIME);
        Clock { at, up: up.map_or(0.0, |t| t.tv_sec() as f64 + t.tv_nsec() as f64 / 1e9) }
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn random(&self) -> f64 {
        // Jitter needs no good randomness, only a different value on every machine.
        use std::hash::{BuildHasher, Hasher};
        let value = std::collections::hash_map::RandomState::new().build_hasher().finish();
        (value >> 11) as f64 / (1u64 << 53) as f64
    }

    fn ask_link(&self, interface: &str, addresses: &[Ipv4Addr]) -> io::Result<super::link::Heard> {
        let ahead = self.asked.lock().expect("nobody panics with it").take();
        match ahead.filter(|question| question.is(interface, addresses)) {
            Some(question) => question.answer(),
            None => super::link::ask(interface, addresses),
        }
    }
}

type Reader = std::thread::JoinHandle<String>;

fn reader(pipe: Option<impl Read + Send + 'static>) -> Option<Reader> {
    let mut pipe = pipe?;
    Some(std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }))
}

fn join(reader: Option<Reader>) -> String {
    reader.and_then(|r| r.join().ok()).unwrap_or_default()
}
