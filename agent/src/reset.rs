//! `kindling reset`: takes this machine out of its cluster and off what Kindling made of it.
//!
//! The cluster first, this machine second, the role file last: a reset that was interrupted is repeated.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::access::Access;
use crate::cluster::pki::Pair;
use crate::error::StepError;
use crate::etcd::{Etcd, Member, member_at};
use crate::host::{Command, Host, exists};
use crate::lease;
use crate::plan::proxy_unit;
use crate::published;
use crate::role::{NodeSpec, Role};
use crate::runtime::socket;
use crate::step::kubeadm::{self, ETCD_MANIFEST, ETCD_MEMBER, KUBELET_CONF};

const ADMIN_CONF: &str = "/etc/kubernetes/admin.conf";
const DRAIN: Duration = Duration::from_secs(180);

#[derive(Debug, Clone)]
pub struct Reset {
    /// Only this machine: the cluster is gone, or was told by others.
    pub force: bool,
    /// An administrator's, for a worker: its own identity may not remove its Node.
    pub kubeconfig: Option<PathBuf>,
    pub role_file: PathBuf,
}

/// One thing that a reset does; what is printed before anything is done is the same list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Drain,
    /// Of the list that load balancers read.
    Withdraw,
    EtcdMember,
    Node,
    Kubeadm,
    Services(Vec<&'static str>),
    Files(Vec<&'static str>),
    RoleFile,
}

impl Part {
    fn title(&self, spec: &NodeSpec) -> String {
        let name = &spec.name;
        match self {
            Self::Drain => format!("drain the Node {name}: its pods go elsewhere"),
            Self::Withdraw => "take this API server out of the load balancers' list".into(),
            Self::EtcdMember => {
                "remove this machine's etcd member, if the others have a quorum without it".into()
            }
            Self::Node => format!("remove the Node {name} from the cluster"),
            Self::Kubeadm => "stop the kubelet and all containers (kubeadm reset)".into(),
            Self::Services(units) => format!("stop and disable {}", units.join(", ")),
            Self::Files(paths) => format!("remove {}", paths.join(", ")),
            Self::RoleFile => "remove the role file: at the next boot this machine becomes nothing".into(),
        }
    }
}

/// All that Kubernetes and Kindling keep of a node, but the role file and preloaded images.
const KUBERNETES_FILES: &[&str] = &[
    "/etc/kubernetes",
    "/var/lib/etcd",
    "/var/lib/kubelet/pki",
    "/var/lib/kubelet/config.yaml",
    "/var/lib/kubelet/kubeadm-flags.env",
    "/etc/cni/net.d",
    "/root/.kube",
];
const ETCD_FILES: &[&str] = &["/var/lib/etcd", "/etc/etcd", "/etc/default/etcd"];
const KINDLING_FILES: &[&str] = &[
    "/etc/kindling/endpoint.toml",
    "/run/kindling/endpoint",
    "/etc/kindling/kubeadm.yaml",
    "/etc/kindling/discovery.conf",
    "/var/lib/kindling/servers.json",
    "/var/lib/kindling/nginx-servers.conf",
    "/var/lib/kindling/vrrp-waits",
    "/var/lib/kindling/joining",
    "/var/lib/kindling/init-grant",
    "/var/lib/kindling/etcd-removed",
    "/var/lib/kindling/etcd-member",
    "/var/lib/kindling/addons",
    // Keys and the administrator's kubeconfig, where a renewal was interrupted.
    "/var/lib/kindling/certs-before",
    "/var/lib/kindling/certs-renewal",
    "/var/lib/kindling/status.json",
];

/// What is to be done, in this order.
pub fn parts(spec: &NodeSpec, host: &dyn Host, force: bool) -> Vec<Part> {
    let mut parts = Vec::new();
    let joined = exists(host, KUBELET_CONF) || exists(host, ETCD_MANIFEST);
    if spec.kubernetes().is_some() {
        if joined && !force {
            parts.push(Part::Drain);
            if spec.control_plane().is_some() {
                parts.push(Part::Withdraw);
            }
            if exists(host, ETCD_MANIFEST) {
                parts.push(Part::EtcdMember);
            }
            parts.push(Part::Node);
        }
        parts.push(Part::Kubeadm);
    }
    let is_etcd = matches!(spec.role, Role::Etcd(_));
    if is_etcd && !force && exists(host, ETCD_MEMBER) {
        parts.push(Part::EtcdMember);
    }
    let mut units = Vec::new();
    if spec.vrrp().is_some() {
        // The VIP leaves this machine before what it leads to.
        units.extend(["keepalived.service", "kindling-endpoint.service"]);
    }
    if let Some(proxy) = spec.proxy() {
        units.push(proxy_unit(proxy.kind));
    }
    if is_etcd {
        units.push("etcd.service");
    }
    if !units.is_empty() {
        parts.push(Part::Services(units));
    }
    if spec.kubernetes().is_some() {
        parts.push(Part::Files(KUBERNETES_FILES.to_vec()));
    }
    if is_etcd {
        parts.push(Part::Files(ETCD_FILES.to_vec()));
    }
    let drop_ins = crate::emulated::DROP_INS.into_iter().filter(|path| exists(host, path));
    parts.push(Part::Files(KINDLING_FILES.iter().copied().chain(drop_ins).collect()));
    parts.push(Part::RoleFile);
    parts
}

/// The list for people, before anything is done.
pub fn describe(spec: &NodeSpec, host: &dyn Host, force: bool) -> String {
    let parts = parts(spec, host, force);
    let lines = parts.iter().enumerate().map(|(n, part)| format!("{:>3}. {}\n", n + 1, part.title(spec)));
    format!(
        "{} ({}) of cluster {} would be reset:\n{}",
        spec.name,
        spec.role_name(),
        spec.cluster,
        lines.collect::<String>()
    )
}

impl Reset {
    /// Does it; `tell` hears a line a part.
    pub fn run(&self, spec: &NodeSpec, host: &dyn Host, tell: &mut dyn FnMut(&str)) -> Result<(), StepError> {
        if !self.force {
            self.check(spec, host)?;
        }
        let parts = parts(spec, host, self.force);
        for (n, part) in parts.iter().enumerate() {
            tell(&format!("[{}/{}] {}", n + 1, parts.len(), part.title(spec)));
            self.part(part, spec, host, tell)?;
        }
        Ok(())
    }

    /// What would stop a clean reset is said before anything is done.
    fn check(&self, spec: &NodeSpec, host: &dyn Host) -> Result<(), StepError> {
        if matches!(spec.role, Role::Worker(_)) && self.kubeconfig.is_none() && exists(host, KUBELET_CONF) {
            return Err(StepError::lasting(
                "a worker may not drain and remove its own Node",
                "give an administrator's kubeconfig (--kubeconfig FILE); or `kubectl drain` and `kubectl delete node` it elsewhere and reset with --force",
            ));
        }
        match parts(spec, host, false).contains(&Part::EtcdMember) {
            true => members_without(spec, host).map(|_| ()),
            false => Ok(()),
        }
    }

    fn kubectl(&self, host: &dyn Host, args: &[&str]) -> Result<(), StepError> {
        let kubeconfig = self.kubeconfig.as_deref().unwrap_or(Path::new(ADMIN_CONF)).display().to_string();
        let all = ["--kubeconfig", kubeconfig.as_str()].into_iter().chain(args.iter().copied());
        host.run(&Command::new("kubectl", all).timeout(DRAIN + Duration::from_secs(30))).map(|_| ()).map_err(
            |error| {
                StepError::passing(
                    error.to_string(),
                    "mend it and run the reset again; if the cluster is gone for good: --force",
                )
            },
        )
    }

    fn reset_kubeadm(&self, spec: &NodeSpec, host: &dyn Host) -> Result<(), StepError> {
        let kubernetes = spec.kubernetes().expect("only Kubernetes nodes have a kubelet");
        let socket = socket(kubernetes.runtime);
        // The member was removed above, or nobody is to be asked.
        let skip = "--skip-phases=remove-etcd-member";
        let reset = Command::new("kubeadm", ["reset", "--force", "--cri-socket", socket, skip])
            .timeout(Duration::from_secs(300));
        kubeadm::ended(host, spec, "reset", &reset, host.run(&reset))?;
        host.run(&Command::new("systemctl", ["disable", "--now", "kubelet.service"]))?;
        Ok(())
    }

    fn part(
        &self,
        part: &Part,
        spec: &NodeSpec,
        host: &dyn Host,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(), StepError> {
        let name = spec.name.as_str();
        match part {
            Part::Drain => {
                let timeout = format!("--timeout={}s", DRAIN.as_secs());
                let drain =
                    ["drain", name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", &timeout];
                match self.kubectl(host, &drain) {
                    // An earlier reset got that far.
                    Err(error) if error.cause.contains("NotFound") => Ok(()),
                    result => result,
                }
            }
            Part::Withdraw => withdraw(spec, host),
            Part::EtcdMember => remove_member(spec, host, tell),
            Part::Node => self.kubectl(host, &["delete", "node", name, "--ignore-not-found"]),
            Part::Kubeadm => self.reset_kubeadm(spec, host),
            Part::Services(units) => {
                for unit in units {
                    host.run(
                        &Command::new("systemctl", ["disable", "--now", unit])
                            .timeout(Duration::from_secs(90)),
                    )?;
                }
                Ok(())
            }
            Part::Files(paths) => paths.iter().try_for_each(|path| remove_file(host, Path::new(path))),
            Part::RoleFile => remove_file(host, &self.role_file),
        }
    }
}

fn remove_file(host: &dyn Host, path: &Path) -> Result<(), StepError> {
    host.remove(path).map_err(|error| StepError::file("remove", path, &error))
}

fn withdraw(spec: &NodeSpec, host: &dyn Host) -> Result<(), StepError> {
    let Some(role) = spec.control_plane() else { return Ok(()) };
    let access = Access::new(host, spec, role)?;
    published::set(&access, &spec.name, None).map_err(|error| {
        StepError::passing(
            error.to_string(),
            "mend it and run the reset again; if the cluster is gone for good: --force",
        )
    })
}

/// etcd's CA, and the machines of its other members.
fn etcd_of(spec: &NodeSpec) -> Option<(Pair, Vec<Ipv4Addr>)> {
    match &spec.role {
        Role::ControlPlane(role) => Some((role.pki.etcd_authority(), role.peers.clone())),
        Role::Etcd(role) => {
            let others = role.members.values().copied().filter(|ip| *ip != spec.address()).collect();
            Some((role.authority(), others))
        }
        Role::Worker(_) | Role::LoadBalancer(_) => None,
    }
}

/// Another member and all of them, if the others have a quorum of what remains; the member itself may be gone already.
fn members_without<'a>(
    spec: &NodeSpec,
    host: &'a dyn Host,
) -> Result<(Etcd<'a>, Ipv4Addr, Vec<Member>), StepError> {
    let (ca, peers) = etcd_of(spec).expect("only machines with an etcd member come here");
    let etcd = Etcd::new(host, &ca)?;
    // Its own member knows those that came after its role file.
    let known = etcd.members(spec.address()).unwrap_or_default();
    let later = known.iter().filter_map(Member::address).filter(|ip| *ip != spec.address());
    let peers: BTreeSet<Ipv4Addr> = peers.into_iter().chain(later).collect();
    let told = peers.iter().find_map(|peer| Some((*peer, etcd.members(*peer).ok()?)));
    let Some((teller, members)) = told else {
        return Err(StepError::lasting(
            "no other etcd member answers: without this machine the cluster would be gone",
            "power the others on; to end the cluster on this machine: --force",
        ));
    };
    let others: Vec<&Member> = members.iter().filter(|m| !m.is_at(spec.address())).collect();
    let healthy =
        others.iter().filter(|m| m.address().is_some_and(|address| etcd.answers(address).is_ok())).count();
    if healthy < others.len() / 2 + 1 {
        return Err(StepError::lasting(
            format!(
                "only {healthy} of the {} other etcd members are healthy: without this one they have no quorum",
                others.len()
            ),
            "bring the others back first; to end the cluster on this machine: --force",
        ));
    }
    Ok((etcd, teller, members))
}

fn remove_member(spec: &NodeSpec, host: &dyn Host, tell: &mut dyn FnMut(&str)) -> Result<(), StepError> {
    let remove = |tell: &mut dyn FnMut(&str)| {
        let (etcd, teller, members) = members_without(spec, host)?;
        let Some(own) = member_at(&members, spec.address()) else { return Ok(()) };
        etcd.remove(teller, own.id, tell, &|| ())
    };
    let Role::ControlPlane(role) = &spec.role else { return remove(tell) };
    // Nobody may join meanwhile.
    let access = Access::new(host, spec, role)?;
    let lock = lease::acquire(&access, lease::ETCD_JOIN, spec.name.as_str(), spec.deadlines.cluster, tell)?;
    let removed = remove(tell);
    lock.release();
    // A removed member ends, and its kubelet would start it again for ever.
    removed.and_then(|()| remove_file(host, Path::new(ETCD_MANIFEST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paths below /var/lib/kindling that a file of the sources names.
    fn named(file: &Path, found: &mut BTreeSet<String>) {
        let text = std::fs::read_to_string(file).expect("a source file");
        for rest in text.split("\"/var/lib/kindling/").skip(1) {
            let name = rest.split(['"', '/']).next().expect("a name");
            // This one's own words are no path.
            if name.starts_with(|c: char| c.is_ascii_lowercase()) {
                found.insert(format!("/var/lib/kindling/{name}"));
            }
        }
    }

    fn walk(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.extension() {
                _ if path.is_dir() => walk(&path, found),
                Some(end) if end == "rs" => named(&path, found),
                _ => {}
            }
        }
    }

    #[test]
    fn nothing_that_kindling_keeps_of_a_node_outlives_a_reset() {
        let mut found = BTreeSet::new();
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        // Of the image, not of the node.
        let stays = ["/var/lib/kindling/images", "/var/lib/kindling/images.imported"];
        found.retain(|path| !stays.contains(&path.as_str()) && !KINDLING_FILES.contains(&path.as_str()));
        assert_eq!(found, BTreeSet::new());
    }
}
