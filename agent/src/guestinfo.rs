//! What a node on vSphere tells its vCenter, through guestinfo: how far it came, and why it failed. Read by
//! `govc vm.info -e`, or by `deploy.sh status`, without a network to the node and without a console.
//!
//! Once the node has joined, the seed that VMware shows to every program of the guest is redacted as
//! cloud-init itself does it (its `redact_keys`): the value becomes `---`, the encoding a space. The metadata
//! stays: without it cloud-init would take the next boot for one of a new machine.

use std::time::Duration;

use crate::host::{Command, CommandError, Host, read_text};
use crate::status::{State, Status, one_line};

const STATUS: &str = "guestinfo.kindling.status";
const USER_DATA: &str = "guestinfo.userdata";
const USER_DATA_ENCODING: &str = "guestinfo.userdata.encoding";

/// VMware takes 64 KiB; a person reads two lines.
const LONGEST: usize = 1024;

/// The vendor that VMware's hypervisors write into DMI, as systemd-detect-virt looks for it.
fn is_vmware(host: &dyn Host) -> bool {
    read_text(host, "/sys/class/dmi/id/sys_vendor").is_some_and(|vendor| vendor.starts_with("VMware"))
}

fn rpctool(request: String) -> Command {
    Command::new("vmware-rpctool", [request]).timeout(Duration::from_secs(10))
}

fn set(host: &dyn Host, key: &str, value: &str) -> Result<(), CommandError> {
    host.run(&rpctool(format!("info-set {key} {value}"))).map(|_| ())
}

/// A run began: what an earlier one told is not so any more.
pub fn running(host: &dyn Host) {
    if is_vmware(host) {
        tell(host, "running");
    }
}

/// A run ended: its outcome is told, and where the node is what it should be, the seed is redacted.
pub fn ended(host: &dyn Host, status: &Status) {
    if !is_vmware(host) {
        return;
    }
    tell(host, &summary(status));
    if status.state == State::Done
        && let Err(error) = redact(host)
    {
        log::warn!("the seed's secrets are still in {USER_DATA}: {error}");
    }
}

/// Who cannot be told is no reason to fail: the console and the journal know it, too.
fn tell(host: &dyn Host, text: &str) {
    if let Err(error) = set(host, STATUS, text) {
        log::warn!("vCenter is not told of this node's state: {error}");
    }
}

/// One line: the state, and of a failure step, cause and remedy. No secret is in a status.
fn summary(status: &Status) -> String {
    let text = match (&status.failure, status.state) {
        (Some(failure), _) => {
            let again = if failure.retry { ", tries again" } else { "" };
            format!(
                "failed{again}: step {}: {} | remedy: {}",
                failure.step,
                one_line(&failure.cause),
                one_line(&failure.remedy)
            )
        }
        (None, State::Done) => format!("done in {:.0} s", status.seconds),
        (None, State::Running) => "running".into(),
        (None, State::Failed) => "failed".into(),
    };
    // A message that ends within a character or has control characters may be refused as a whole.
    let mut short: String = text.chars().filter(|c| !c.is_control()).collect();
    if short.len() > LONGEST {
        let end = (0..LONGEST - 2).rev().find(|end| short.is_char_boundary(*end)).unwrap_or(0);
        short.truncate(end);
        short.push_str("...");
    }
    short
}

/// The value first, as cloud-init does: power that is cut in between leaves nothing to be decoded.
fn redact(host: &dyn Host) -> Result<(), CommandError> {
    let query = Command { query: true, ..rpctool(format!("info-get {USER_DATA_ENCODING}")) };
    // A seed in plain text has no encoding, and render writes none such; a missing key is an error of the tool.
    if !host.run(&query).is_ok_and(|output| !output.stdout.trim().is_empty()) {
        return Ok(());
    }
    set(host, USER_DATA, "---")?;
    set(host, USER_DATA_ENCODING, " ")
}
