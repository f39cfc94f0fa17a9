//! Before the VIP is claimed for the first time: does it belong to somebody else, and does another group of
//! machines speak VRRP with the same identifier?

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;

use super::{Context, Found, files};
use crate::error::StepError;
use crate::host::link::{Advert, Heard};
use crate::host::{Command, exists, read_text};
use crate::role::types::{MacAddress, Vrid};

#[derive(Debug, Clone, PartialEq)]
pub struct VipFree {
    pub interface: String,
    pub vip: Ipv4Addr,
    pub vrid: Vrid,
    /// The other machines that may hold the VIP.
    pub peers: Vec<Ipv4Addr>,
}

/// Where it is there, keepalived must not start: this machine came later, and the VIP's other holders do not know it.
/// Once it is there only a peer's advert takes it away, as nobody may hold the VIP when this machine asks again.
pub const WAITS: &str = "/var/lib/kindling/vrrp-waits";

/// What the other holders of the VIP know of this machine.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Known,
    Unknown,
    /// Nobody holds the VIP.
    Unsaid,
}

impl VipFree {
    pub fn look(&self, cx: &mut Context<'_>) -> Result<Found, StepError> {
        // keepalived defends what it has claimed; and a boot starts it before this is asked.
        let state = cx.host.run(&Command::query("systemctl", ["is-active", "keepalived.service"]));
        let state = match &state {
            Ok(output) => output.stdout.trim(),
            Err(error) => error.output().map_or("", |output| output.stdout.trim()),
        };
        if matches!(state, "active" | "activating" | "reloading") {
            return Ok(Found::Matches(Some("keepalived runs already".into())));
        }
        let heard = cx.host.ask_link(&self.interface, &self.addresses()).map_err(|error| {
            StepError::passing(
                format!("cannot ask on {} who holds {}: {error}", self.interface, self.vip),
                "the agent must run as root, and the link must be up",
            )
        })?;
        self.judge(&heard)?;
        let waits = read_text(cx.host, WAITS);
        Ok(match (self.standing(&heard), waits) {
            (Standing::Unknown, None) => Found::Differs("the others do not know this machine".into()),
            (Standing::Known, Some(_)) => Found::Differs("the others know this machine now".into()),
            (_, Some(why)) => Found::Matches(Some(why.trim().to_owned())),
            (_, None) => Found::matches(),
        })
    }

    /// Notes whether keepalived must wait, or may start.
    pub fn act(&self, cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
        let path = Path::new(WAITS);
        if exists(cx.host, WAITS) {
            files::remove(cx.host, path)?;
            return Ok(Some("the others know this machine now".into()));
        }
        let why = format!(
            "one of {} holds the VIP {} and does not speak to this machine: it was rendered before this one was in \
             cluster.toml. This machine does not take part in the VIP until the others have new seeds; boot them one \
             after the other, and then this one\n",
            self.peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            self.vip
        );
        cx.host.write(path, why.as_bytes(), 0o644).map_err(|e| StepError::file("write", path, &e))?;
        Ok(Some(why.trim().to_owned()))
    }

    /// Adverts are unicast. A holder of the VIP that is a peer of ours and sends us none has not us for a peer: it
    /// would not hear ours either, and both would hold the VIP.
    fn standing(&self, heard: &Heard) -> Standing {
        let speaks = |advert: &Advert| advert.vrid == self.vrid.0 && self.peers.contains(&advert.from);
        if heard.adverts.iter().any(speaks) {
            return Standing::Known;
        }
        let is_held = heard.owners.iter().any(|(address, _)| *address == self.vip);
        if is_held { Standing::Unknown } else { Standing::Unsaid }
    }

    /// Those whose owners are asked for: the VIP, and the peers, to know them by their MAC addresses.
    pub fn addresses(&self) -> Vec<Ipv4Addr> {
        [self.vip].into_iter().chain(self.peers.iter().copied()).collect()
    }

    fn judge(&self, heard: &Heard) -> Result<(), StepError> {
        let ours: BTreeSet<MacAddress> = heard
            .owners
            .iter()
            .filter(|(address, _)| self.peers.contains(address))
            .map(|(_, mac)| *mac)
            .collect();
        let owners: Vec<String> = heard
            .owners
            .iter()
            .filter(|(address, mac)| *address == self.vip && !ours.contains(mac))
            .map(|(_, mac)| mac.to_string())
            .collect();
        if !owners.is_empty() {
            return Err(StepError::passing(
                format!(
                    "the VIP {} is in use already: {} answers for it on {}, and is no machine of this cluster that may hold it",
                    self.vip,
                    owners.join(" and "),
                    self.interface
                ),
                "find that machine by its MAC address and give it another address, or write another `vip` in cluster.toml and render again; it is tried again until the VIP is free",
            ));
        }
        let speakers: Vec<String> = heard
            .adverts
            .iter()
            .filter(|advert| advert.vrid == self.vrid.0 && !self.peers.contains(&advert.from))
            .map(|advert| format!("{} (version {})", advert.from, advert.version))
            .collect();
        if !speakers.is_empty() {
            return Err(StepError::passing(
                format!(
                    "another group on {} speaks VRRP with this cluster's VRID {}: {}",
                    self.interface,
                    self.vrid,
                    speakers.join(", ")
                ),
                "write another `vrid` under [vrrp] in cluster.toml and render again, or change the other group's; it is tried again until that one is silent",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
    const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 108);
    const PEERS_MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 8]);
    const FOREIGN_MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 0x66]);

    fn judge(owners: &[(Ipv4Addr, MacAddress)], adverts: &[Advert]) -> Result<(), StepError> {
        let question = VipFree { interface: "eth0".into(), vip: VIP, vrid: Vrid(66), peers: vec![PEER] };
        question.judge(&Heard { owners: owners.to_vec(), adverts: adverts.to_vec() })
    }

    fn advert(last: u8, vrid: u8) -> Advert {
        Advert { from: Ipv4Addr::new(10, 0, 0, last), version: 2, vrid }
    }

    #[test]
    fn a_peer_may_hold_the_vip_and_speak() {
        assert_eq!(judge(&[(VIP, PEERS_MAC), (PEER, PEERS_MAC)], &[advert(108, 66)]), Ok(()));
    }

    #[test]
    fn a_holder_that_does_not_speak_to_us_does_not_know_us() {
        let question = VipFree { interface: "eth0".into(), vip: VIP, vrid: Vrid(66), peers: vec![PEER] };
        let standing = |owners: &[(Ipv4Addr, MacAddress)], adverts: &[Advert]| {
            question.standing(&Heard { owners: owners.to_vec(), adverts: adverts.to_vec() })
        };
        let held = [(VIP, PEERS_MAC), (PEER, PEERS_MAC)];
        assert_eq!(standing(&held, &[advert(108, 66)]), Standing::Known);
        assert_eq!(standing(&held, &[advert(108, 67)]), Standing::Unknown);
        assert_eq!(standing(&held, &[]), Standing::Unknown);
        assert_eq!(standing(&[(PEER, PEERS_MAC)], &[]), Standing::Unsaid);
    }

    #[test]
    fn groups_with_other_identifiers_are_nobodys_concern() {
        assert_eq!(judge(&[(Ipv4Addr::new(10, 0, 0, 9), FOREIGN_MAC)], &[advert(66, 67)]), Ok(()));
    }

    #[test]
    fn a_foreign_owner_is_named_by_its_mac_address() {
        let error = judge(&[(VIP, FOREIGN_MAC), (PEER, PEERS_MAC)], &[]).unwrap_err();
        assert!(error.cause.contains("10.0.0.10 is in use already: 52:54:00:00:00:66 answers"), "{error}");
        assert!(error.retry);
    }

    #[test]
    fn a_foreign_group_is_named_by_its_address() {
        let error = judge(&[], &[advert(66, 66)]).unwrap_err();
        assert!(error.cause.contains("VRID 66: 10.0.0.66 (version 2)"), "{error}");
        assert!(error.retry);
    }
}
