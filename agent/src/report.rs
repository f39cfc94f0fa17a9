//! Where a run's lines go: the console of the machine, and the journal with fields of its own.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use log::Level;

use crate::apply::Observer;
use crate::host::Host;
use crate::host::linux::Linux;
use crate::status::{ConsoleLine, Event};

/// Fixed ids, one a kind of event, to be found by `journalctl MESSAGE_ID=...` (systemd.journal-fields(7)).
pub const STEP_STARTED: &str = "494d2563904443c0984469facee4e019";
pub const STEP_WAITING: &str = "d07b9729b8a4436e86ab691897a79adf";
pub const STEP_DONE: &str = "196a690451e3439684a4e7efd8d35255";
pub const STEP_UNCHANGED: &str = "cebf54173a6244198fd033e3e88defaf";
pub const STEP_FAILED: &str = "bdc6c305dc46442fa41fb20ec30bf55b";
pub const NODE_DONE: &str = "fc72d3bad76b4e9491018f6abc842c69";
pub const NODE_FAILED: &str = "9d3cf02cb51540b8b1c33e642b8505b8";

/// Prints to standard output, or, run as a service, to the journal and the console.
pub struct Lines {
    journal: bool,
}

impl Lines {
    pub fn new() -> Self {
        let journal = systemd_journal_logger::connected_to_journal()
            && systemd_journal_logger::JournalLog::new()
                .and_then(|log| log.install().map_err(std::io::Error::other))
                .is_ok();
        log::set_max_level(log::LevelFilter::Info);
        Self { journal }
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self::new()
    }
}

/// The console may be gone, full or somebody else's: people lose a line then, and nothing else.
pub fn console(text: &str) {
    const O_NOCTTY: i32 = nix::libc::O_NOCTTY;
    const O_NONBLOCK: i32 = nix::libc::O_NONBLOCK;
    if let Ok(mut console) =
        OpenOptions::new().write(true).custom_flags(O_NOCTTY | O_NONBLOCK).open("/dev/console")
    {
        let _ = console.write_all(format!("{text}\r\n").as_bytes());
    }
}

/// With the kernel's clock in front, in the kernel's way: `kindling report` reads the times from a serial log.
pub fn stamped(text: &str) {
    console(&format!("[{:12.6}] {text}", Linux::default().clock().up));
}

impl Observer for Lines {
    fn tell(&mut self, line: &ConsoleLine) {
        if !self.journal {
            println!("{line}");
            return;
        }
        stamped(&line.to_string());
        let (id, level) = match (&line.event, line.n) {
            (Event::Begun { .. } | Event::Started, _) => (STEP_STARTED, Level::Info),
            (Event::Waiting(_), _) => (STEP_WAITING, Level::Info),
            (Event::Done { .. }, 0) => (NODE_DONE, Level::Info),
            (Event::Done { .. }, _) => (STEP_DONE, Level::Info),
            (Event::Unchanged { .. }, _) => (STEP_UNCHANGED, Level::Info),
            (Event::Failed { .. }, 0) => (NODE_FAILED, Level::Error),
            (Event::Failed { .. }, _) => (STEP_FAILED, Level::Error),
        };
        let (cause, remedy) = match &line.event {
            Event::Failed { cause, remedy } => (cause.as_str(), remedy.as_str()),
            Event::Waiting(what) => (what.as_str(), ""),
            _ => ("", ""),
        };
        log::log!(
            level,
            MESSAGE_ID = id, KINDLING_STEP = line.step.as_str(), KINDLING_STEP_NUMBER = line.n, KINDLING_STEPS = line.total,
            KINDLING_CAUSE = cause, KINDLING_REMEDY = remedy;
            "{line}"
        );
    }
}
