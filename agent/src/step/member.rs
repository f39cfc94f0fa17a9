//! The etcd member of a control plane that joins: the only part of a join that one machine at a time may do.
//!
//! kubeadm announces the member without a vote (a learner), writes its manifest, waits, and gives it its vote once it has
//! caught up. What remains where kubeadm was interrupted is done here.

use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use super::cluster_version::may_write_etcd;
use super::join::JoinEtcd;
use super::kubeadm::Part;
use super::{Context, files, kubeadm, last_words};
use crate::access::Access;
use crate::error::StepError;
use crate::etcd::{Etcd, Member, member_at};
use crate::host::{Command, Host, exists, read_text};
use crate::kube::KubeError;
use crate::lease::{self, Lock};
use crate::retry::{Attempt, Patience, wait};
use crate::role::NodeSpec;
use crate::role::types::KubernetesVersion;

const DATA: &str = "/var/lib/etcd";
/// How often a member of ours was removed again, a line each.
const REMOVED: &str = "/var/lib/kindling/etcd-removed";
const MOST_REMOVALS: usize = 3;

/// Adds this machine's etcd member, or completes what an interrupted run had begun, and waits until it runs.
pub fn join(
    cx: &mut Context<'_>,
    join: &JoinEtcd,
    part: &Part,
    version: KubernetesVersion,
) -> Result<(), StepError> {
    let (host, spec) = (cx.host, cx.spec);
    let role = spec.control_plane().expect("only control planes have etcd members");
    let etcd = Etcd::of_control_plane(host, role)?;
    if manifest_is_whole(host) {
        return wait_until_it_runs(cx, &etcd, None);
    }
    files::remove(host, kubeadm::ETCD_MANIFEST)?;
    let access = Access::new(host, spec, role)?;
    if let Some(members) = has_data(cx, &etcd)? {
        may_write_etcd(cx, &access, &etcd, version, None)?;
        (cx.waiting)(
            "the etcd member's data is here, and its manifest was lost with the power: writing it again",
        );
        write_manifest(cx, join, &members)?;
        return wait_until_it_runs(cx, &etcd, None);
    }
    let deadline = spec.deadlines.cluster;
    let lock = lease::acquire(&access, lease::ETCD_JOIN, spec.name.as_str(), deadline, cx.waiting)?;
    let result =
        may_write_etcd(cx, &access, &etcd, version, Some(&lock)).and_then(|()| add(cx, &etcd, part, &lock));
    lock.release();
    result
}

/// kubeadm writes it without a sync; `status` is the last key of a static pod.
fn manifest_is_whole(host: &dyn Host) -> bool {
    read_text(host, kubeadm::ETCD_MANIFEST).is_some_and(|text| text.ends_with("status: {}\n"))
}

/// The members as any other one tells them, and who told.
fn members(etcd: &Etcd<'_>, spec: &NodeSpec) -> Result<(Ipv4Addr, Vec<Member>), String> {
    let role = spec.control_plane().expect("only control planes have etcd members");
    let mut reasons = Vec::new();
    for peer in &role.peers {
        match etcd.members(*peer) {
            Ok(members) => return Ok((*peer, members)),
            // Why exactly differs from look to look.
            Err(KubeError::Unreachable { .. }) => reasons.push(format!("{peer} does not answer")),
            Err(error) => reasons.push(format!("{peer}: {error}")),
        }
    }
    if reasons.is_empty() {
        return Err("this control plane has no peers".into());
    }
    Err(format!("no etcd member answers: {}", reasons.join(", ")))
}

/// This machine's member, and who told of it.
fn own_member(etcd: &Etcd<'_>, spec: &NodeSpec) -> Option<(Ipv4Addr, Member)> {
    let (teller, members) = members(etcd, spec).ok()?;
    Some((teller, member_at(&members, spec.address())?.clone()))
}

/// The members, if this machine's is one of them and its data is here: then it is started, not removed.
fn has_data(cx: &mut Context<'_>, etcd: &Etcd<'_>) -> Result<Option<Vec<Member>>, StepError> {
    let (host, spec) = (cx.host, cx.spec);
    if !exists(host, Path::new(DATA).join("member")) {
        return Ok(None);
    }
    let (_, members) = wait(
        host,
        Patience::seconds(spec.deadlines.cluster),
        cx.waiting,
        || members(etcd, spec).map_or_else(Attempt::NotYet, Attempt::Ready),
        |reason| {
            StepError::passing(
                reason,
                "power the other control planes on: their consoles say what they wait for",
            )
        },
    )?;
    Ok(member_at(&members, spec.address()).is_some().then_some(members))
}

/// Under the lock.
fn add(cx: &mut Context<'_>, etcd: &Etcd<'_>, part: &Part, lock: &Lock<'_>) -> Result<(), StepError> {
    let teller = wait_for_the_others(cx, etcd, lock)?;
    let (host, spec) = (cx.host, cx.spec);
    let now = etcd.members(teller).unwrap_or_default();
    if let Some(own) = member_at(&now, spec.address()) {
        (cx.waiting)("removing the etcd member that this machine had before");
        etcd.remove(teller, own.id, cx.waiting, &|| lock.keep())?;
    }
    files::remove(host, DATA)?;
    let added = kubeadm::run_join(cx, part, &mut || {
        lock.keep();
        ControlFlow::Continue(())
    });
    match added {
        // kubeadm was not patient enough, or died: the member may start all the same.
        Err(error) if manifest_is_whole(host) => (cx.waiting)(&format!("waiting on for the member: {error}")),
        other => other?,
    }
    wait_until_it_runs(cx, etcd, Some(lock))
}

/// etcd takes no new member while another one does not run; answers one that does.
fn wait_for_the_others(
    cx: &mut Context<'_>,
    etcd: &Etcd<'_>,
    lock: &Lock<'_>,
) -> Result<Ipv4Addr, StepError> {
    let (host, spec) = (cx.host, cx.spec);
    wait(
        host,
        Patience::seconds(spec.deadlines.kubeadm),
        cx.waiting,
        || {
            lock.keep();
            let (teller, members) = match members(etcd, spec) {
                Ok(told) => told,
                Err(reason) => return Attempt::NotYet(reason),
            };
            for other in members.iter().filter(|m| !m.is_at(spec.address())) {
                let name = if other.name.is_empty() { &other.peer_urls.concat() } else { &other.name };
                let answers = other.address().map(|address| etcd.answers(address));
                if !other.started || !matches!(answers, Some(Ok(()))) {
                    return Attempt::NotYet(format!("the etcd member {name} does not run"));
                }
            }
            Attempt::Ready(teller)
        },
        |reason| {
            StepError::passing(
                reason,
                "power its machine on; if it is gone for good, run `kindling reset` for it or remove the member with `etcdctl member remove`",
            )
        },
    )
}

/// The manifest that kubeadm would have written, from the members that the others know: kubeadm itself asks the API for
/// them, and the API needs this member.
fn write_manifest(cx: &mut Context<'_>, join: &JoinEtcd, members: &[Member]) -> Result<(), StepError> {
    let (host, spec) = (cx.host, cx.spec);
    // A kubelet that sees the manifest before it is complete would start another cluster.
    host.run(&Command::new("systemctl", ["stop", "kubelet.service"]))?;
    files::write(host, &join.config)?;
    let path = join.config.path.display().to_string();
    let command = Command::new("kubeadm", ["init", "phase", "etcd", "local", "--config", &path]);
    kubeadm::ended(host, spec, "init phase etcd local", &command, host.run(&command))?;
    let text = read_text(host, kubeadm::ETCD_MANIFEST).unwrap_or_default();
    let manifest = Path::new(kubeadm::ETCD_MANIFEST);
    host.write(manifest, of_existing_cluster(&text, spec, members).as_bytes(), 0o600)
        .map_err(|e| StepError::file("write", manifest, &e))?;
    files::remove(host, &join.config.path)?;
    host.run(&Command::new("systemctl", ["start", "kubelet.service"]))?;
    Ok(())
}

/// The manifest of a first member as that of one among `members`.
fn of_existing_cluster(manifest: &str, spec: &NodeSpec, members: &[Member]) -> String {
    let name = |m: &Member| match () {
        () if m.is_at(spec.address()) => spec.name.to_string(),
        () if m.name.is_empty() => m.id.to_string(),
        () => m.name.clone(),
    };
    let cluster: Vec<String> = members
        .iter()
        .flat_map(|m| m.peer_urls.iter().map(move |url| format!("{}={url}", name(m))))
        .collect();
    let flag = "- --initial-cluster=";
    let mut text = String::with_capacity(manifest.len() + 200);
    for line in manifest.lines() {
        match line.find(flag) {
            Some(at) => {
                let indent = &line[..at];
                text.push_str(&format!("{indent}{flag}{}\n", cluster.join(",")));
                text.push_str(&format!("{indent}- --initial-cluster-state=existing\n"));
            }
            None if line.contains("--initial-cluster-state=") => {}
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

fn keep(lock: Option<&Lock<'_>>) {
    if let Some(lock) = lock {
        lock.keep();
    }
}

fn wait_until_it_runs(
    cx: &mut Context<'_>,
    etcd: &Etcd<'_>,
    lock: Option<&Lock<'_>>,
) -> Result<(), StepError> {
    let (host, spec) = (cx.host, cx.spec);
    host.run(&Command::new("systemctl", ["enable", "--now", "kubelet.service"]))?;
    let patience =
        Patience { longest: Duration::from_secs(2), ..Patience::seconds(spec.deadlines.kubeadm / 3) };
    let waited = wait(
        host,
        patience,
        cx.waiting,
        || {
            keep(lock);
            match etcd.answers(spec.address()) {
                Ok(()) => Attempt::Ready(()),
                Err(error) => Attempt::NotYet(match error.status() {
                    Some(_) if promoted(etcd, spec) => "this machine's etcd member has got its vote".into(),
                    Some(_) => "this machine's etcd member has no quorum yet".into(),
                    None => "this machine's etcd member does not answer yet".into(),
                }),
            }
        },
        |reason| StepError::passing(reason, ""),
    );
    match waited {
        Ok(()) => Ok(()),
        Err(late) => Err(give_up(cx, etcd, lock, late)?),
    }
}

/// Gives the member its vote, which kubeadm does unless it was interrupted before.
fn promoted(etcd: &Etcd<'_>, spec: &NodeSpec) -> bool {
    own_member(etcd, spec).is_some_and(|(teller, own)| own.learner && etcd.promote(teller, own.id).is_ok())
}

/// The member did not start in time. One that never started is taken out again, where the others can do without it.
fn give_up(
    cx: &mut Context<'_>,
    etcd: &Etcd<'_>,
    lock: Option<&Lock<'_>>,
    late: StepError,
) -> Result<StepError, StepError> {
    let (host, spec) = (cx.host, cx.spec);
    let cause = spec.mask(&format!("{}{}", late.cause, last_words::of_control_plane(host)));
    let remedy = "`journalctl -b -u kubelet` and the containers' logs in /var/log/pods say why; the machine may be starved: raise [deadlines] kubeadm";
    let never_started =
        own_member(etcd, spec).filter(|(teller, own)| !own.started && etcd.answers(*teller).is_ok());
    let Some((teller, own)) = never_started else { return Ok(StepError::passing(cause, remedy)) };
    let before = read_text(host, REMOVED).unwrap_or_default();
    if before.lines().count() >= MOST_REMOVALS {
        return Ok(StepError::lasting(
            format!("{cause}; it was added and taken out again {MOST_REMOVALS} times"),
            remedy,
        ));
    }
    let path = Path::new(REMOVED);
    host.write(path, format!("{before}{}\n", own.id).as_bytes(), 0o644)
        .map_err(|e| StepError::file("write", path, &e))?;
    files::remove(host, kubeadm::ETCD_MANIFEST)?;
    etcd.remove(teller, own.id, cx.waiting, &|| keep(lock))?;
    files::remove(host, DATA)?;
    Ok(StepError::passing(format!("{cause}; it was taken out again, and is added anew"), remedy))
}
