//! Is this machine's clock one with which certificates can be made and checked?

use std::time::Duration;

use time::OffsetDateTime;
use time::macros::format_description;

use super::{Context, Found};
use crate::cluster::pki::validity;
use crate::error::StepError;
use crate::host::{Command, Host, date};
use crate::retry::{Attempt, Patience, wait};
use crate::role::NodeSpec;

/// How long a clock that cannot be right is waited for; the unit tries again afterwards.
const SET_WITHIN: u64 = 300;
/// chrony's burst of four questions takes some 8 s (chrony.conf(5), `iburst`).
const ANSWERED_WITHIN: u64 = 30;

#[derive(Debug, Clone, PartialEq)]
pub struct Clock {
    /// The life of the cluster's CA: no time outside of it can be right.
    life: Option<(OffsetDateTime, OffsetDateTime)>,
    /// chrony was given servers, and runs.
    servers: bool,
}

impl Clock {
    pub fn new(spec: &NodeSpec, servers: bool) -> Self {
        Self { life: validity(&spec.ca), servers }
    }

    pub fn look(&self, cx: &mut Context<'_>) -> Result<Found, StepError> {
        self.wait_until_possible(cx)?;
        // What was made at the first boot is there, and later ones need no more than that.
        if !self.servers || cx.completed {
            return Ok(Found::matches());
        }
        let host = cx.host;
        let answered = wait(
            host,
            Patience { longest: Duration::from_secs(1), ..Patience::seconds(ANSWERED_WITHIN) },
            cx.waiting,
            || match synchronised(host) {
                true => Attempt::Ready(()),
                false => Attempt::NotYet("no time server has answered yet".into()),
            },
            |reason| StepError::passing(reason, ""),
        );
        // Without network to them, in an air gap for one, the hypervisor's clock is all that there is.
        let alone =
            || format!("no time server answered within {ANSWERED_WITHIN} s: the machine's own clock counts");
        Ok(Found::Matches(answered.err().map(|_| alone())))
    }

    /// A certificate that is made by a wrong clock is of no use once the clock is right.
    fn wait_until_possible(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        let Some((from, until)) = self.life else { return Ok(()) };
        let host = cx.host;
        let attempt = || {
            let now = date(host);
            let reason = match now {
                now if now < from => format!("is before the cluster's CA was made, {}", text(from)),
                now if now > until => format!("is after the end of the cluster's CA, {}", text(until)),
                _ => return Attempt::Ready(()),
            };
            // By the day: a wait of minutes prints a line, and not one a minute.
            Attempt::NotYet(format!("this machine's clock is wrong: {} {reason}", now.date()))
        };
        wait(host, Patience::seconds(SET_WITHIN), cx.waiting, attempt, |reason| {
            StepError::passing(
                reason,
                "set the clock of the hypervisor or of the VM (UTC), or name servers that this machine reaches under [network] ntp in cluster.toml and render again; it is tried again",
            )
        })
    }
}

fn synchronised(host: &dyn Host) -> bool {
    // The last field of the report is the leap status (chronyc(1)).
    host.run(&Command::query("chronyc", ["-c", "tracking"]).timeout(Duration::from_secs(5))).is_ok_and(
        |output| output.stdout.trim().rsplit(',').next().is_some_and(|leap| leap != "Not synchronised"),
    )
}

fn text(time: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    time.format(&format).unwrap_or_default()
}
