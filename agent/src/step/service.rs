//! A system service with its files: checked before it is started, restarted only when they changed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::{Context, Found, files};
use crate::error::StepError;
use crate::host::{Command, Host, read_text};
use crate::plan::FileSpec;
use crate::render::{WRITTEN_BY, WRITTEN_BY_KEY};
use crate::retry::{Attempt, Patience, wait};

#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    pub unit: &'static str,
    /// The first is the one that `checker` reads; the others are what it refers to.
    pub files: Vec<FileSpec>,
    /// The daemon's own check of its configuration; the file's path is appended.
    pub checker: Option<Vec<&'static str>>,
    /// A command that succeeds when the service answers.
    pub probe: Option<Vec<&'static str>>,
    /// What the probe must list as `ok`: the second word of a line that ends so.
    pub part: Option<&'static str>,
    /// Other units that must not run beside it, where an earlier role file may have wanted them.
    pub instead_of: Vec<&'static str>,
    /// A file that, where it is there, says in its first line why the unit must not be started yet.
    pub unless: Option<&'static str>,
    /// What an earlier role file may have left where the service reads it.
    pub leftovers: Vec<Leftover>,
}

/// Files that the role file names no more, as far as Kindling wrote them.
#[derive(Debug, Clone, PartialEq)]
pub enum Leftover {
    /// `HOST/hosts.toml` below this folder, and the CA beside it.
    Hosts(&'static str),
    /// A JSON file that says that Kindling wrote it.
    Json(&'static str),
}

impl Leftover {
    /// Those that are there and are not `wanted`.
    fn found(&self, host: &dyn Host, wanted: &[FileSpec]) -> Result<Vec<PathBuf>, StepError> {
        let is_wanted = |path: &Path| wanted.iter().any(|file| file.path == path);
        let read = |path: &Path| -> Result<String, StepError> {
            let bytes = host.read(path).map_err(|error| StepError::file("read", path, &error))?;
            Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default())
        };
        let mut found = Vec::new();
        match self {
            Self::Hosts(folder) => {
                let folder = Path::new(folder);
                let names = host.list(folder).map_err(|error| StepError::file("read", folder, &error))?;
                for name in names {
                    let hosts = folder.join(name).join("hosts.toml");
                    if !is_wanted(&hosts) && read(&hosts)?.starts_with(WRITTEN_BY) {
                        found.extend([hosts.with_file_name("ca.crt"), hosts]);
                    }
                }
            }
            Self::Json(path) => {
                let (path, (key, written_by)) = (Path::new(path), WRITTEN_BY_KEY);
                let is_ours = |text: String| {
                    serde_json::from_str::<Value>(&text).is_ok_and(|file| file[key] == written_by)
                };
                if !is_wanted(path) && is_ours(read(path)?) {
                    found.push(path.to_owned());
                }
            }
        }
        Ok(found)
    }
}

/// A unit's own deadlines end it sooner.
const STOP_AND_START: Duration = Duration::from_secs(180);

fn is_enabled(host: &dyn Host, unit: &str) -> bool {
    host.run(&Command::query("systemctl", ["is-enabled", "--quiet", unit])).is_ok()
}

/// Whether units that must not run are off, now and at each boot.
pub fn look_off(units: &[&'static str], cx: &mut Context<'_>) -> Result<Found, StepError> {
    let on = units.iter().find(|unit| is_enabled(cx.host, unit));
    Ok(on.map_or(Found::matches(), |unit| Found::Differs(format!("{unit} is enabled"))))
}

pub fn act_off(units: &[&'static str], cx: &mut Context<'_>) -> Result<(), StepError> {
    for unit in units.iter().filter(|unit| is_enabled(cx.host, unit)) {
        cx.host.run(&Command::new("systemctl", ["disable", "--now", unit]).timeout(STOP_AND_START))?;
    }
    Ok(())
}

impl Service {
    pub fn new(unit: &'static str, files: Vec<FileSpec>) -> Self {
        Self {
            unit,
            files,
            checker: None,
            probe: None,
            part: None,
            instead_of: Vec::new(),
            unless: None,
            leftovers: Vec::new(),
        }
    }

    pub fn checked_by(mut self, program: &'static str, args: &[&'static str]) -> Self {
        self.checker = Some([&[program], args].concat());
        self
    }

    pub fn answering(mut self, program: &'static str, args: &[&'static str]) -> Self {
        self.probe = Some([&[program], args].concat());
        self
    }

    pub fn instead_of(mut self, units: &[&'static str]) -> Self {
        self.instead_of.extend(units);
        self
    }

    pub fn without(mut self, leftover: Leftover) -> Self {
        self.leftovers.push(leftover);
        self
    }

    fn left_over(&self, host: &dyn Host) -> Result<Vec<PathBuf>, StepError> {
        let mut all = Vec::new();
        for leftover in &self.leftovers {
            all.extend(leftover.found(host, &self.files)?);
        }
        Ok(all)
    }

    pub fn unless(mut self, file: &'static str) -> Self {
        self.unless = Some(file);
        self
    }

    /// A service may run without a part of it, and answer all the same.
    pub fn with_part(mut self, part: &'static str) -> Self {
        self.part = Some(part);
        self
    }

    /// The unit's state, once systemd is through with starting it: after a boot that may go on beside the agent.
    fn settled_state(&self, cx: &mut Context<'_>) -> String {
        let (host, unit) = (cx.host, self.unit);
        let state = || match host.run(&Command::query("systemctl", ["is-active", unit])) {
            Ok(output) => output.stdout.trim().to_owned(),
            Err(error) => error.output().map(|o| o.stdout.trim().to_owned()).unwrap_or_default(),
        };
        let settled = wait(
            host,
            // systemd itself ends what takes too long; containerd has five minutes.
            Patience { longest: Duration::from_secs(1), ..Patience::seconds(330) },
            cx.waiting,
            || match state() {
                state if state == "activating" => Attempt::NotYet(format!("{unit} is starting")),
                state => Attempt::Ready(state),
            },
            |reason| StepError::passing(reason, ""),
        );
        settled.unwrap_or_else(|_| "still starting".to_owned())
    }

    pub fn look(&self, cx: &mut Context<'_>) -> Result<Found, StepError> {
        if let Some(why) = self.unless.and_then(|file| read_text(cx.host, file)) {
            return Ok(Found::Matches(Some(format!("not started: {}", why.trim()))));
        }
        let list = files::differing(cx.host, &self.files)?;
        if !list.is_empty() {
            return Ok(Found::Differs(list.join(", ")));
        }
        if let Some(path) = self.left_over(cx.host)?.last() {
            return Ok(Found::Differs(format!("{} is not in the role file any more", path.display())));
        }
        // The files may be new and the daemon may still run with the old ones.
        if cx.interrupted {
            return Ok(Found::Differs("an earlier run was interrupted here".into()));
        }
        let others = look_off(&self.instead_of, cx)?;
        if matches!(others, Found::Differs(_)) {
            return Ok(others);
        }
        if !is_enabled(cx.host, self.unit) {
            return Ok(Found::Differs(format!("{} is not enabled", self.unit)));
        }
        let state = self.settled_state(cx);
        if state != "active" {
            return Ok(Found::Differs(format!("{} is {state}", self.unit)));
        }
        // One that was frozen answers again by itself.
        if let Err(error) = self.wait_for_answer(cx) {
            return Ok(Found::Differs(error.cause));
        }
        Ok(Found::matches())
    }

    pub fn act(&self, cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
        // What the configuration refers to must be there when the daemon checks it.
        for file in self.files.iter().skip(1) {
            files::write(cx.host, file)?;
        }
        self.check_candidate(cx.host)?;
        if let Some(file) = self.files.first() {
            files::write(cx.host, file)?;
        }
        // A CA first: it would stay, and count, where the power goes before its turn.
        for path in self.left_over(cx.host)? {
            files::remove(cx.host, &path)?;
        }
        act_off(&self.instead_of, cx)?;
        if !is_enabled(cx.host, self.unit) {
            cx.host.run(&Command::new("systemctl", ["enable", self.unit]))?;
        }
        // restart starts what does not run
        cx.host.run(&Command::new("systemctl", ["restart", self.unit]).timeout(STOP_AND_START)).map_err(
            |error| {
                let log = cx
                    .host
                    .run(&Command::query("journalctl", ["-b", "-o", "cat", "-n", "8", "-u", self.unit]))
                    .map(|o| o.stdout)
                    .unwrap_or_default();
                StepError::passing(
                    format!("{error}\n{log}"),
                    format!("`journalctl -b -u {}` has the whole of it", self.unit),
                )
            },
        )?;
        self.wait_for_answer(cx)?;
        Ok(None)
    }

    /// Lets the daemon check the new configuration before the old one is replaced.
    fn check_candidate(&self, host: &dyn Host) -> Result<(), StepError> {
        let (Some(checker), Some(file)) = (&self.checker, self.files.first()) else { return Ok(()) };
        let name = file.path.file_name().unwrap_or_default();
        let candidate = PathBuf::from("/run/kindling").join(name);
        host.write(&candidate, file.content.as_bytes(), 0o600)
            .map_err(|e| StepError::file("write", &candidate, &e))?;
        let mut args: Vec<String> = checker[1..].iter().map(|a| (*a).to_owned()).collect();
        args.push(candidate.display().to_string());
        let result = host.run(&Command::query(checker[0], args));
        files::remove(host, &candidate)?;
        result.map(|_| ()).map_err(|error| {
            StepError::lasting(
                format!("{} would refuse its configuration: {error}", self.unit),
                "nothing was changed; this is a mistake of Kindling's or a version of the daemon that it does not know: report it",
            )
        })
    }

    /// Why the service does not answer, if so.
    fn silent(&self, host: &dyn Host) -> Option<String> {
        let probe = self.probe.as_ref()?;
        let command = Command::query(probe[0], probe[1..].iter().copied()).timeout(Duration::from_secs(10));
        match host.run(&command) {
            Err(error) => Some(format!("{} does not answer: {error}", self.unit)),
            Ok(output) => {
                let part = self.part?;
                let is_well = |line: &str| {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    words.get(1) == Some(&part) && words.last() == Some(&"ok")
                };
                let what = format!("{} runs, but without its part `{part}`", self.unit);
                (!output.stdout.lines().any(is_well)).then_some(what)
            }
        }
    }

    fn wait_for_answer(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        let (host, unit) = (cx.host, self.unit);
        wait(
            host,
            Patience::seconds(60),
            cx.waiting,
            || self.silent(host).map_or(Attempt::Ready(()), Attempt::NotYet),
            |reason| StepError::passing(reason, format!("`journalctl -b -u {unit}` says why")),
        )
    }
}
