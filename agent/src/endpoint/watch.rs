//! The process: two threads that listen, and one that writes the number.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;

use super::health::{Health, Outcome, Rules};
use super::probe::Probe;
use super::weight::weight;
use super::{CONFIG_FILE, Config, FIFO, FOLDER, WEIGHT_FILE, learn, vip_line};
use crate::host::Host;
use crate::host::linux::Linux;
use crate::status::VipMove;

const STATE_FILE: &str = "/run/kindling/endpoint/state.json";
/// So many moves are kept.
const MOVES: usize = 64;
/// A VIP that came here so often within so many seconds finds no rest: something is wrong with the machines or their
/// network, and each move cuts every connection to the API.
const RESTLESS: usize = 5;
const WITHIN: f64 = 60.0;
/// In seconds, as long as it goes on.
const SAY_AGAIN: f64 = 600.0;
/// systemd is told that all goes well until the next check is so much later than its deadline allows.
const STALE: Duration = Duration::from_secs(5);

enum Event {
    Checked(Outcome),
    /// keepalived became MASTER, or something else.
    Master(bool),
}

/// What must outlive a restart of this process.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
struct State {
    /// `None` until it was for the first time.
    healthy: Option<bool>,
    /// Seconds since boot at which this machine became MASTER.
    master_since: Option<f64>,
    /// The last ones, for `kindling status --json`.
    #[serde(default)]
    moves: Vec<VipMove>,
    /// Seconds since boot at which it was last said that the VIP finds no rest.
    #[serde(default)]
    restless_said: Option<f64>,
}

/// When this machine took the VIP and gave it up since it booted.
pub fn moves() -> Vec<VipMove> {
    State::load().moves
}

/// Watches until it is killed. `ca_file` is the cluster's CA certificate.
pub fn run(ca_file: &Path) -> io::Result<()> {
    let other = |error: String| io::Error::other(error);
    let config = fs::read_to_string(CONFIG_FILE)?;
    let config: Config = toml::from_str(&config).map_err(|error| other(format!("{CONFIG_FILE}: {error}")))?;
    let ca = fs::read_to_string(ca_file)?;
    fs::create_dir_all(FOLDER)?;
    if let Some(servers) = config.servers {
        let ca = ca.clone();
        thread::spawn(move || learn::run(&servers, &ca));
    }
    let (Some(check_what), Some(address)) = (config.check, config.address) else { only_learn() };
    let rules = Rules::of(check_what);
    let mut probe = Probe::new(check_what, address, rules, &ca).map_err(|error| other(error.to_string()))?;

    let (send, receive) = channel();
    let states = send.clone();
    thread::spawn(move || listen(&states));
    thread::spawn(move || check(&mut probe, &send));
    decide(&receive, rules)
}

/// Nothing has to be decided on the only machine that may hold the VIP.
fn only_learn() -> ! {
    let systemd = Systemd::new();
    systemd.tell("READY=1");
    loop {
        systemd.tell("WATCHDOG=1");
        thread::sleep(Duration::from_secs(1));
    }
}

fn check(probe: &mut Probe, send: &Sender<Event>) {
    while send.send(Event::Checked(probe.ask())).is_ok() {}
}

/// Hears from keepalived what it has become.
fn listen(send: &Sender<Event>) {
    loop {
        if let Err(error) = hear(send) {
            log::warn!("{FIFO}: {error}");
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Until the FIFO is another one.
fn hear(send: &Sender<Event>) -> io::Result<()> {
    // Made here, because keepalived removes at its end what it made itself.
    if !fs::metadata(FIFO).is_ok_and(|m| m.file_type().is_fifo()) {
        nix::unistd::mkfifo(FIFO, Mode::S_IRUSR | Mode::S_IWUSR)?;
    }
    // Open for writing as well, so that the end of keepalived is not the end of the file.
    let file = OpenOptions::new().read(true).write(true).open(FIFO)?;
    let number = file.metadata()?.ino();
    let mut lines = BufReader::new(&file);
    loop {
        let mut ready = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        if !lines.buffer().is_empty() || poll(&mut ready, PollTimeout::from(1000u16))? > 0 {
            let mut line = String::new();
            lines.read_line(&mut line)?;
            if let Some(master) = becomes_master(line.trim_end()) {
                let _ = send.send(Event::Master(master));
            }
        } else if fs::metadata(FIFO).map(|m| m.ino()).ok() != Some(number) {
            return Ok(());
        }
    }
}

/// `INSTANCE "kang" MASTER 100`: the states among what keepalived says.
fn becomes_master(line: &str) -> Option<bool> {
    let mut words = line.rsplit(' ');
    let (_, state) = (words.next()?, words.next()?);
    match state {
        "MASTER" => Some(true),
        "BACKUP" | "FAULT" | "STOP" => Some(false),
        _ => None,
    }
}

fn decide(receive: &Receiver<Event>, rules: Rules) -> io::Result<()> {
    let systemd = Systemd::new();
    let mut state = State::load();
    let mut health = Health::new(rules, state.healthy);
    let mut number = None;
    let mut checked = now();
    let mut before = state.clone();
    systemd.tell("READY=1");
    loop {
        // Before it is said or kept what happened: a MASTER without its bonus loses to one that wakes up.
        let master = state.master_since.map(|since| Duration::from_secs_f64((now() - since).max(0.0)));
        let next = weight(health.healthy, master);
        if number != Some(next) {
            write_number(next)?;
            number = Some(next);
        }
        if state != before {
            state.tell_since(&before);
            state.save()?;
            before = state.clone();
        }
        match receive.recv_timeout(Duration::from_millis(250)) {
            Ok(Event::Checked(outcome)) => {
                checked = now();
                if health.see(outcome) {
                    state.healthy = Some(health.healthy);
                }
            }
            Ok(Event::Master(holds)) => state.become_master(holds),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("a thread has ended")),
        }
        if now() - checked < (rules.patience + STALE).as_secs_f64() {
            systemd.tell("WATCHDOG=1");
        }
    }
}

impl State {
    /// As it was before this process was started again; at first what keepalived begins with.
    fn load() -> Self {
        fs::read(STATE_FILE).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    fn become_master(&mut self, holds: bool) {
        if holds == self.master_since.is_some() {
            return;
        }
        let clock = Linux::default().clock();
        self.master_since = holds.then_some(clock.up);
        self.moves.push(VipMove { at: clock.at, up: clock.up, holds });
        self.moves.drain(..self.moves.len().saturating_sub(MOVES));
    }

    /// In the journal and on the console: what is another than it was.
    fn tell_since(&mut self, before: &Self) {
        if let Some(healthy) = self.healthy.filter(|_| self.healthy != before.healthy) {
            log::info!("this machine is {}healthy", if healthy { "" } else { "not " });
        }
        let Some(last) = self.moves.last().filter(|_| self.moves != before.moves) else { return };
        let (up, line) = (last.up, vip_line(last.holds));
        log::info!("{line}");
        crate::report::stamped(line);
        if let Some(line) = self.restless(up) {
            log::warn!("{line}");
            crate::report::stamped(&line);
        }
    }

    /// What to say of a VIP that comes and goes, when it is time to say it.
    fn restless(&mut self, now: f64) -> Option<String> {
        let came = self.moves.iter().filter(|one| one.holds && now - one.up < WITHIN).count();
        if came < RESTLESS || self.restless_said.is_some_and(|at| now - at < SAY_AGAIN) {
            return None;
        }
        self.restless_said = Some(now);
        Some(format!(
            "kindling-endpoint: the VIP came here {came} times within {WITHIN} s, and each time cut every connection to \
             the API | remedy: give the machines that may hold it processors of their own; if they must share them, write \
             a larger advert_ms under [vrrp] and render again"
        ))
    }

    fn save(&self) -> io::Result<()> {
        let text = serde_json::to_string(self).map_err(io::Error::other)?;
        let next = format!("{STATE_FILE}.new");
        fs::write(&next, text)?;
        fs::rename(next, STATE_FILE)
    }
}

/// Over the old one and never shorter, so that keepalived, which reads at the end of a write, never finds
/// an empty file.
fn write_number(number: i32) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(WEIGHT_FILE)?;
    file.write_all(format!("{number:4}\n").as_bytes())
}

/// Seconds since boot, those in which the machine slept included.
fn now() -> f64 {
    Linux::default().clock().up
}

/// systemd's side of sd_notify(3): if nothing is heard for WatchdogSec, the process is started again.
struct Systemd(Option<(UnixDatagram, String)>);

impl Systemd {
    fn new() -> Self {
        let socket = std::env::var("NOTIFY_SOCKET").ok().filter(|path| path.starts_with('/'));
        Self(socket.and_then(|path| Some((UnixDatagram::unbound().ok()?, path))))
    }

    fn tell(&self, what: &str) {
        if let Some((socket, path)) = &self.0 {
            let _ = socket.send_to(what.as_bytes(), path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vip_that_finds_no_rest_is_named_and_not_at_each_move() {
        let mut state = State::default();
        let moved = |state: &mut State, up: f64| {
            state.moves.push(VipMove { at: up, up, holds: true });
            state.moves.push(VipMove { at: up, up: up + 0.1, holds: false });
            state.restless(up)
        };
        // Once every twenty seconds is a machine that is started again, or frozen.
        assert!((0..20).all(|n| moved(&mut state, f64::from(n) * 20.0).is_none()));
        let said: Vec<String> =
            (0..200).filter_map(|n| moved(&mut state, 1000.0 + f64::from(n) * 4.0)).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].contains("came here 5 times within 60 s") && said[0].contains("advert_ms"),
            "{said:?}"
        );
    }

    #[test]
    fn keepaliveds_words_are_understood() {
        for (line, master) in [
            ("INSTANCE \"kang\" MASTER 170", Some(true)),
            ("INSTANCE \"kang\" BACKUP 100", Some(false)),
            ("INSTANCE \"kang\" FAULT 100", Some(false)),
            ("INSTANCE \"kang\" STOP 100", Some(false)),
            ("INSTANCE \"kang\" MASTER_RX_LOWER_PRI 100", None),
            ("", None),
        ] {
            assert_eq!(becomes_master(line), master, "{line}");
        }
    }
}
