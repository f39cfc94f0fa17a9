//! The state folder of a cluster that runs on this machine: the plan, and a folder for each machine with
//! its disk and its console log.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::UpError;
use super::plan::{UpPlan, hex};
use crate::host::linux::write_atomic;

/// Says that the folder is ours to remove.
const MARK: &str = ".kindling-state";
const STATE: &str = "state.json";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub plan: UpPlan,
    /// Where the API is reached on 127.0.0.1.
    pub port: u16,
}

/// When a machine was powered on last, and where its console log stood then.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct PowerOn {
    /// Seconds since the epoch.
    pub at: f64,
    pub console: u64,
}

/// The state folder; its path is absolute.
#[derive(Debug, Clone)]
pub struct Place {
    root: PathBuf,
}

pub type Lock = Flock<fs::File>;

impl Place {
    /// The folder of a cluster where none is named: below the current folder.
    pub fn default_path(cluster: &str) -> PathBuf {
        Path::new(".kindling").join(cluster)
    }

    /// Opens a state folder that is there.
    pub fn open(path: &Path) -> Result<Option<Self>, UpError> {
        let root = match fs::canonicalize(path) {
            Ok(root) => root,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(UpError::file("open", path, &error)),
        };
        if !root.join(MARK).exists() {
            return Err(UpError::new(
                format!("{} is not a state folder of `kindling up`", root.display()),
                "name a folder that is not there yet, or the one that `kindling up` made",
            ));
        }
        Ok(Some(Self { root }))
    }

    /// Opens a state folder, or makes it: 0700, as the machines' disks and seeds are in it.
    pub fn make(path: &Path) -> Result<Self, UpError> {
        let failed = |error: std::io::Error| UpError::file("make", path, &error);
        let empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        if !path.exists() || empty {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(failed)?;
            fs::write(path.join(MARK), "").map_err(failed)?;
        }
        let place = Self::open(path)?.ok_or_else(|| failed(ErrorKind::NotFound.into()))?;
        // QEMU's drive options, mount's overlay options and nspawn's bind mounts each quote these otherwise.
        let text = place.root.to_string_lossy();
        if let Some(bad) = text.chars().find(|c| matches!(c, ',' | ':' | '\\' | '"' | '\n' | '\u{fffd}')) {
            return Err(UpError::new(
                format!(
                    "the state folder's path {text} has {bad:?} in it, which QEMU and mount use for something else"
                ),
                "name another folder with --state",
            ));
        }
        Ok(place)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn node(&self, name: &str) -> PathBuf {
        self.root.join("nodes").join(name)
    }

    pub fn console(&self, name: &str) -> PathBuf {
        self.node(name).join("console.log")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("admin.conf")
    }

    /// Short, and another one for each state folder of this host: it is a part of the names of network
    /// namespaces and control groups.
    pub fn id(&self) -> String {
        hex(&digest(&SHA256, self.root.to_string_lossy().as_bytes()).as_ref()[..3])
    }

    /// `None` where another process holds it.
    pub fn try_lock(&self) -> Result<Option<Lock>, UpError> {
        let path = self.root.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| UpError::file("open", &path, &error))?;
        Ok(Flock::lock(file, FlockArg::LockExclusiveNonblock).ok())
    }

    /// Held while machines are made, started or stopped, by one process at a time; not while `up` waits.
    pub fn lock(&self) -> Result<Lock, UpError> {
        self.try_lock()?.ok_or_else(|| {
            UpError::new(
                format!("another kindling is starting or stopping the machines of {}", self.root.display()),
                "wait until it has ended",
            )
        })
    }

    /// `None` where nothing was ever started, or where a crash left no whole file.
    pub fn read(&self) -> Option<State> {
        serde_json::from_slice(&fs::read(self.root.join(STATE)).ok()?).ok()
    }

    pub fn write(&self, state: &State) -> Result<(), UpError> {
        let text = serde_json::to_string_pretty(state).expect("a state has only types that JSON knows");
        self.write_file(&self.root.join(STATE), text.as_bytes())
    }

    /// 0600, atomically.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), UpError> {
        write_atomic(path, bytes, 0o600).map_err(|error| UpError::file("write", path, &error))
    }

    pub fn make_folder(&self, path: &Path) -> Result<(), UpError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| UpError::file("make", path, &error))
    }

    pub fn note_power_on(&self, name: &str) -> Result<(), UpError> {
        let console = fs::metadata(self.console(name)).map_or(0, |m| m.len());
        let note = PowerOn { at: wall_clock().as_secs_f64(), console };
        let text = serde_json::to_string(&note).expect("a note has only numbers");
        self.write_file(&self.node(name).join("power-on.json"), text.as_bytes())
    }

    pub fn power_on(&self, name: &str) -> Option<PowerOn> {
        serde_json::from_slice(&fs::read(self.node(name).join("power-on.json")).ok()?).ok()
    }

    /// Removes the folder with all in it, and `.kindling` if it is empty then.
    pub fn remove(&self) -> Result<(), UpError> {
        // The mark goes last, so that a removal that was cut short can be repeated.
        let failed = |error: std::io::Error| UpError::file("remove", &self.root, &error);
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name() == MARK {
                continue;
            }
            let is_folder = entry.file_type().map_err(failed)?.is_dir();
            let removed =
                if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
            removed.map_err(|error| UpError::file("remove", &entry.path(), &error))?;
        }
        fs::remove_dir_all(&self.root).map_err(failed)?;
        if let Some(parent) = self.root.parent().filter(|p| p.ends_with(".kindling")) {
            // It may hold other clusters.
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }
}

/// Since the epoch.
pub fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
