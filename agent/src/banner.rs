//! What stands above the login prompt of the console and below a login by SSH: what this machine is, how far it came, and where
//! to look. agetty(8) reads /run/issue.d, pam_motd(8) /run/motd.d.

use std::path::Path;

use crate::host::{Command, Host};
use crate::image::Image;
use crate::role::NodeSpec;
use crate::status::{State, Status, one_line};

const PLACES: [&str; 2] = ["/run/issue.d/kindling.issue", "/run/motd.d/kindling"];
const RUNNING: &str = "it is being brought up";

/// A run began; its role file says what the machine shall be.
pub fn running(host: &dyn Host, spec: &NodeSpec, image: Option<&Image>) {
    show(host, &format!("{} ({}): {RUNNING}", spec.name, spec.role_name()), image);
}

/// A run ended.
pub fn ended(host: &dyn Host, status: &Status) {
    let role = if status.role.is_empty() { String::new() } else { format!(" ({})", status.role) };
    let state = match (&status.failure, status.state) {
        (Some(failure), _) => format!(
            "FAILED in {}: {}\n  remedy: {}",
            failure.step,
            one_line(&failure.cause),
            one_line(&failure.remedy)
        ),
        (None, State::Done) => "up".to_owned(),
        (None, _) => RUNNING.to_owned(),
    };
    show(host, &format!("{}{role}: {state}", status.node), status.image.as_ref());
}

/// Who cannot be shown it finds it in the journal.
fn show(host: &dyn Host, state: &str, image: Option<&Image>) {
    let text = text(state, image);
    for place in PLACES {
        // agetty takes a backslash for the beginning of one of its own words.
        let text = if place.ends_with(".issue") { text.replace('\\', "\\\\") } else { text.clone() };
        if let Err(error) = host.write(Path::new(place), text.as_bytes(), 0o644) {
            log::warn!("the login banner {place} is not up to date: {error}");
        }
    }
    // The prompts that are open already. There is none where no getty runs.
    let _ = host.run(&Command::new("agetty", ["--reload"]));
}

fn text(state: &str, image: Option<&Image>) -> String {
    let image = image.map(|image| format!("  image {}\n", image.version)).unwrap_or_default();
    format!(
        "\nKindling: {state}\n{image}  `kindling status` shows every step; the log: journalctl -u kindling -u kubelet\n\n"
    )
}
