//! A member of an external etcd cluster, as a service of the machine.
//!
//! All members of a new cluster start together and wait for each other: their agents tell whether their disks
//! are new (`room`). A member whose disk is new while the others know it as one that ran has lost what it had
//! acknowledged: started under its old identity it could vote an acknowledged write away. So it first asks the
//! others, and where they know it, has them forget it and joins as a new member
//! (<https://etcd.io/docs/v3.5/op-guide/runtime-configuration/>).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use super::etcd_health::{ASK, health, identity};
use super::etcd_log::{self, Log};
use super::kubeadm::ETCD_MEMBER;
use super::{Context, Found, files, last_words};
use crate::error::StepError;
use crate::etcd::{self, member_at};
use crate::host::{Command, Host, exists};
use crate::kube::{Credentials, KubeError};
use crate::plan::FileSpec;
use crate::render::{self, ClusterState, ETCD_DATA as DATA, ETCD_FILE, ETCD_PKI, client_url, peer_url};
use crate::retry::{Attempt, Patience, wait};
use crate::role::etcd_version::EtcdVersion;
use crate::role::types::DnsName;
use crate::role::{EtcdRole, NodeSpec};
use crate::room::{self, Peer};

const UNIT: &str = "etcd.service";
/// Written before etcd's first start: what lies in its data folder afterwards is ours.
const MARK: &str = "/var/lib/kindling/etcd-member";
/// How long new members that are a majority wait for machines that are off. With fewer etcd would acknowledge
/// nothing anyway, and the next to come may be one with data that missed what this machine had acknowledged
/// before its disk was new.
const GRACE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// As for a new cluster, whatever brought the member in: with it etcd itself refuses to start over where
    /// somebody removed its data and the others answer.
    pub config: FileSpec,
    pub version: EtcdVersion,
}

/// How a member without data comes in.
enum Way {
    New,
    Existing(BTreeMap<DnsName, Ipv4Addr>),
}

impl Member {
    pub fn new(spec: &NodeSpec, role: &EtcdRole, version: EtcdVersion) -> Self {
        let text = render::etcd(spec, &role.members, version, &role.args, ClusterState::New);
        Self { config: FileSpec::public(ETCD_FILE, text), version }
    }

    pub fn look(&self, cx: &mut Context<'_>) -> Result<Found, StepError> {
        let host = cx.host;
        let data = has_data(host)?;
        refuse_foreign(host, data)?;
        if !files::matches(host, &self.config)? {
            return Ok(Found::Differs(ETCD_FILE.into()));
        }
        if cx.interrupted {
            return Ok(Found::Differs("an earlier run was interrupted here".into()));
        }
        if !data {
            return Ok(Found::Differs("it has no data yet".into()));
        }
        if host.run(&Command::query("systemctl", ["is-enabled", "--quiet", UNIT])).is_err() {
            return Ok(Found::Differs(format!("{UNIT} is not enabled")));
        }
        // It is "activating" until a majority is there, which is not this machine's doing alone.
        match state(host).as_str() {
            "active" | "activating" => Ok(Found::matches()),
            state => Ok(Found::Differs(format!("{UNIT} is {state}"))),
        }
    }

    pub fn act(&self, cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
        let host = cx.host;
        let data = has_data(host)?;
        refuse_foreign(host, data)?;
        if data {
            files::write(host, &self.config)?;
            start(cx)?;
            return Ok(None);
        }
        if !exists(host, MARK) {
            host.write(Path::new(MARK), b"etcd was started on this disk\n", 0o644)
                .map_err(|e| StepError::file("write", Path::new(MARK), &e))?;
        }
        if state(host) != "inactive" {
            host.run(&Command::new("systemctl", ["stop", UNIT]).timeout(Duration::from_secs(120)))?;
        }
        // What a start that failed left: not a log yet, or one in which nothing stands, but in the next one's way.
        files::remove(host, ETCD_MEMBER)?;
        // The package's, but /var may have begun empty.
        let mode = host.mode(DATA.as_ref()).map_err(|e| StepError::file("read", DATA.as_ref(), &e))?;
        if mode != Some(0o700) {
            host.run(&Command::new("install", ["-d", "-m", "700", "-o", "etcd", "-g", "etcd", DATA]))?;
        }
        match way(cx)? {
            Way::New => {
                files::write(host, &self.config)?;
                start(cx)?;
                Ok(None)
            }
            Way::Existing(members) => {
                let text =
                    render::etcd(cx.spec, &members, self.version, &role(cx).args, ClusterState::Existing);
                files::write(host, &FileSpec::public(ETCD_FILE, text))?;
                start(cx)?;
                files::write(host, &self.config)?;
                Ok(Some("joined the members that were there".into()))
            }
        }
    }
}

fn role<'s>(cx: &Context<'s>) -> &'s EtcdRole {
    cx.spec.etcd().expect("only etcd machines have this step")
}

fn has_data(host: &dyn Host) -> Result<bool, StepError> {
    Ok(etcd_log::look(host)? == Log::Written)
}

fn refuse_foreign(host: &dyn Host, data: bool) -> Result<(), StepError> {
    if data && !exists(host, MARK) {
        return Err(StepError::lasting(
            format!(
                "{ETCD_MEMBER} is there, and Kindling did not write it: this disk belonged to another cluster or was set up by hand"
            ),
            "boot the VM from a fresh disk; if it is this cluster's data, keep it",
        ));
    }
    Ok(())
}

/// As systemd says it, also where it answers with a failure.
fn state(host: &dyn Host) -> String {
    let text = match host.run(&Command::query("systemctl", ["is-active", UNIT])) {
        Ok(output) => output.stdout,
        Err(error) => error.output().map(|o| o.stdout.clone()).unwrap_or_default(),
    };
    match text.trim() {
        state @ ("active" | "activating" | "reloading" | "deactivating" | "failed") => state.to_owned(),
        _ => "inactive".to_owned(),
    }
}

/// Starts etcd and waits for its log, which it begins before a majority is there.
fn start(cx: &mut Context<'_>) -> Result<(), StepError> {
    let host = cx.host;
    if host.run(&Command::query("systemctl", ["is-enabled", "--quiet", UNIT])).is_err() {
        host.run(&Command::new("systemctl", ["enable", UNIT]))?;
    }
    // Its start ends only when the cluster answers, so nobody waits for that here.
    host.run(&Command::new("systemctl", ["restart", "--no-block", UNIT]))?;
    wait(
        host,
        Patience::seconds(120),
        cx.waiting,
        || match has_data(host) {
            Ok(true) => Attempt::Ready(()),
            Ok(false) => Attempt::NotYet(format!("{UNIT} has not begun its log")),
            Err(error) => Attempt::Never(error),
        },
        |reason| {
            StepError::passing(
                format!("{reason}{}", last_words::of_unit(host, UNIT)),
                format!("`journalctl -b -u {UNIT}` has the whole of it"),
            )
        },
    )
}

/// What another member's machine says: its etcd, or before that its agent.
enum Said {
    Members(Vec<etcd::Member>),
    /// Its disk is new.
    Fresh,
    /// Why it does not count yet.
    Nothing(String),
    /// It has been a member, and its etcd does not answer yet.
    Member,
}

/// It needs no majority, unlike etcd's own command.
fn ask(host: &dyn Host, ca: &str, credentials: &Credentials, ip: Ipv4Addr) -> Said {
    match etcd::list(host, ca, credentials, ip, ASK) {
        Ok(list) => Said::Members(list),
        Err(KubeError::Unreachable { .. }) => match room::ask(host, ca, ip) {
            Peer::Fresh => Said::Fresh,
            Peer::Member => Said::Member,
            Peer::Silent => Said::Nothing("does not answer".into()),
        },
        Err(KubeError::Untrusted { .. }) => Said::Nothing("has a certificate of another CA".into()),
        Err(error) => Said::Nothing(error.to_string()),
    }
}

/// Finds out how this member comes in, and has the others forget what it was before: only itself, only
/// where they have a majority, and only once.
fn way(cx: &mut Context<'_>) -> Result<Way, StepError> {
    let (host, spec, role) = (cx.host, cx.spec, role(cx));
    let others: Vec<(&DnsName, Ipv4Addr)> =
        role.members.iter().filter(|(name, _)| **name != spec.name).map(|(name, ip)| (name, *ip)).collect();
    if others.is_empty() {
        return Ok(Way::New);
    }
    let identities = |name: &str| identity(host, &format!("{ETCD_PKI}/{name}"));
    let (peer, client) = match (identities("peer"), identities("client")) {
        (Ok(peer), Ok(client)) => (peer, client),
        (Err(reason), _) | (_, Err(reason)) => {
            return Err(StepError::passing(reason, "the step before writes it"));
        }
    };
    let majority = role.members.len() / 2 + 1;
    let mut removed = None;
    let mut enough_since = None;
    wait(
        host,
        Patience::seconds(spec.deadlines.cluster),
        cx.waiting,
        || {
            let said: Vec<_> =
                others.iter().map(|(name, ip)| (*name, *ip, ask(host, &role.ca, &peer, *ip))).collect();
            let silent: Vec<String> = said
                .iter()
                .filter_map(|(name, ip, said)| match said {
                    Said::Nothing(what) => Some(format!("{name} ({ip}) {what}")),
                    _ => None,
                })
                .collect();
            let lists: Vec<(Ipv4Addr, &Vec<etcd::Member>)> = said
                .iter()
                .filter_map(|(_, ip, said)| match said {
                    Said::Members(list) => Some((*ip, list)),
                    _ => None,
                })
                .collect();
            // Named when the cluster was formed, and never started since.
            let is_awaited = |list: &Vec<etcd::Member>| {
                member_at(list, spec.address())
                    .is_some_and(|member| !member.started && !member.name.is_empty())
            };
            if !lists.is_empty() && lists.iter().all(|(_, list)| is_awaited(list)) {
                return Attempt::Ready(Way::New);
            }
            if lists.is_empty() {
                let members: Vec<&str> = said
                    .iter()
                    .filter(|(_, _, said)| matches!(said, Said::Member))
                    .map(|(name, ..)| name.as_str())
                    .collect();
                if !members.is_empty() {
                    return Attempt::NotYet(format!(
                        "{} was a member before this machine's disk was new: its etcd does not answer yet",
                        members.join(", ")
                    ));
                }
                let now = host.now();
                let enough = said.len() - silent.len() + 1 >= majority;
                enough_since = if enough { enough_since.or(Some(now)) } else { None };
                let waited = enough_since.is_some_and(|since: Duration| now.saturating_sub(since) >= GRACE);
                if silent.is_empty() || waited {
                    return Attempt::Ready(Way::New);
                }
                return Attempt::NotYet(format!(
                    "{}; {}",
                    silent.join(", "),
                    if enough {
                        format!("the others form the cluster after {} s", GRACE.as_secs())
                    } else {
                        format!("{majority} of {} must be there", role.members.len())
                    }
                ));
            }
            let healthy = lists.iter().find(|(ip, _)| health(host, &role.ca, &client, *ip).is_ok());
            let Some((ip, list)) = healthy else {
                return Attempt::NotYet(format!(
                    "the cluster knows this machine from before its disk was new, and has no majority to change its members{}",
                    if silent.is_empty() { String::new() } else { format!(": {}", silent.join(", ")) }
                ));
            };
            match member_at(list, spec.address()) {
                Some(member) if !member.started => Attempt::Ready(Way::Existing(named(list, spec, role))),
                Some(member) if removed == Some(member.id) => {
                    Attempt::NotYet("etcd has not forgotten this machine's old member yet".into())
                }
                Some(_) if removed.is_some() => Attempt::Never(StepError::lasting(
                    format!("somebody else runs as the etcd member {}", spec.name),
                    "two machines have this seed: turn one of them off",
                )),
                Some(member) => match etcdctl(host, *ip, &["remove", &format!("{:x}", member.id)]) {
                    Ok(()) => {
                        removed = Some(member.id);
                        Attempt::NotYet("removed this machine's old member, whose disk is gone".into())
                    }
                    Err(reason) => Attempt::NotYet(reason),
                },
                None => {
                    let announce =
                        ["add", spec.name.as_str(), &format!("--peer-urls={}", peer_url(spec.address()))];
                    match etcdctl(host, *ip, &announce) {
                        Ok(()) => Attempt::NotYet("announced this machine as a new member".into()),
                        Err(reason) => Attempt::NotYet(reason),
                    }
                }
            }
        },
        |reason| {
            StepError::passing(
                reason,
                "bring the other etcd machines back: a majority must agree to a change of members",
            )
        },
    )
}

/// The cluster's members by their own account; one that never started has no name there.
fn named(list: &[etcd::Member], spec: &NodeSpec, role: &EtcdRole) -> BTreeMap<DnsName, Ipv4Addr> {
    let mut members: BTreeMap<DnsName, Ipv4Addr> = role
        .members
        .iter()
        .filter(|(_, ip)| member_at(list, **ip).is_some())
        .map(|(name, ip)| (name.clone(), *ip))
        .collect();
    members.insert(spec.name.clone(), spec.address());
    members
}

/// Changes the members through one of them. Keys are named by their files alone.
fn etcdctl(host: &dyn Host, ip: Ipv4Addr, what: &[&str]) -> Result<(), String> {
    let mut args: Vec<String> = vec![
        format!("--endpoints={}", client_url(ip)),
        format!("--cacert={ETCD_PKI}/ca.crt"),
        format!("--cert={ETCD_PKI}/client.crt"),
        format!("--key={ETCD_PKI}/client.key"),
        "--command-timeout=10s".into(),
        "member".into(),
    ];
    args.extend(what.iter().map(|arg| (*arg).to_owned()));
    let command = Command::new("etcdctl", args).timeout(Duration::from_secs(30));
    host.run(&command).map(|_| ()).map_err(|error| {
        // Its other lines have the time in them, and a wait would tell each anew.
        let said = error.output().and_then(|o| o.stderr.lines().find_map(|l| l.strip_prefix("Error: ")));
        match said {
            // etcd wants all members that run to have seen each other for five seconds.
            Some(said) if said.contains("unhealthy cluster") => {
                "etcd does not take a new member before the others are back for some seconds".into()
            }
            Some(said) => format!("etcdctl member {}: {}", what[0], said.trim()),
            None => error.to_string(),
        }
    })
}
