//! The kinds of steps, one file each: every one looks before it acts.

pub mod addons;
mod ask;
pub mod certificates;
pub mod clock;
pub mod cluster_version;
pub mod dns;
pub mod etcd;
pub mod etcd_health;
pub mod etcd_log;
pub mod files;
pub mod image;
pub mod images;
pub mod init;
pub mod join;
pub mod kernel;
pub mod kubeadm;
pub mod kubelet_access;
pub mod last_words;
pub mod member;
pub mod publish;
pub mod ready;
pub mod scrub;
pub mod service;
pub mod stale;
pub mod unity;
pub mod vip;

use crate::error::StepError;
use crate::host::Host;
use crate::plan::{Action, FileSpec, Step};
use crate::preflight::Weight;
use crate::role::NodeSpec;

/// What a step may use: the host, the spec, and what is known of its own earlier runs.
pub struct Context<'a> {
    pub host: &'a dyn Host,
    pub spec: &'a NodeSpec,
    /// The step completed on this machine before.
    pub completed: bool,
    /// The step began on this machine before and did not complete: what matches may be half of it.
    pub interrupted: bool,
    /// Tells what is waited for.
    pub waiting: &'a mut dyn FnMut(&str),
}

/// What a look at the host showed.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing to do, with a remark.
    Matches(Option<String>),
    /// What differs.
    Differs(String),
}

impl Found {
    pub fn matches() -> Self {
        Self::Matches(None)
    }
}

impl Step {
    pub fn look(&self, cx: &mut Context<'_>) -> Result<Found, StepError> {
        match &self.action {
            Action::Preflight(findings) => preflight(findings, cx),
            Action::Hostname(name) => files::look_hostname(name, cx),
            Action::Files(list) => files::look(list, cx),
            Action::Timezone(zone) => files::look_timezone(zone, cx),
            Action::Kernel(kernel) => kernel.look(cx),
            Action::DropIns(list) => files::look_drop_ins(list, cx),
            Action::SwapOff => kernel::look_swap(cx),
            Action::Service(service) => service.look(cx),
            Action::Off(units) => service::look_off(units, cx),
            Action::VipFree(question) => question.look(cx),
            Action::Clock(clock) => clock.look(cx),
            Action::Image(image) => image::look(image, cx),
            Action::Images => images::look(cx),
            Action::Certificates(certificates) => certificates.look(cx),
            Action::Etcd(member) => member.look(cx),
            Action::Init(init) => init.look(cx),
            Action::Join(join) => join.look(cx),
            Action::Addons(addons) => addons.look(cx),
            Action::Kubeconfig => files::look_kubeconfig(cx),
            Action::Ready(ready) => ready.look(cx),
            Action::Dns(dns) => dns.look(cx),
            Action::KubeletAccess => kubelet_access::look(cx),
            Action::Publish => publish::look(cx),
            Action::OneCluster => unity::look(cx),
            Action::Scrub => scrub::look(cx),
        }
    }

    /// Does what [`Step::look`] found missing. Returns a remark.
    pub fn act(&self, cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
        match &self.action {
            // They only look.
            Action::Preflight(_) | Action::OneCluster | Action::Clock(_) => Ok(None),
            Action::Off(units) => service::act_off(units, cx).map(|()| None),
            Action::VipFree(question) => question.act(cx),
            Action::Hostname(name) => files::act_hostname(name, cx),
            Action::Files(list) => files::act(list, cx),
            Action::Timezone(zone) => files::act_timezone(zone, cx),
            Action::Kernel(kernel) => kernel.act(cx),
            Action::DropIns(list) => files::act_drop_ins(list, cx),
            Action::SwapOff => kernel::act_swap(cx),
            Action::Service(service) => service.act(cx),
            Action::Image(image) => image::act(image, cx),
            Action::Images => images::act(cx),
            Action::Certificates(certificates) => certificates.act(cx),
            Action::Etcd(member) => member.act(cx),
            Action::Init(init) => init.act(cx),
            Action::Join(join) => join.act(cx),
            Action::Addons(addons) => addons.act(cx),
            Action::Kubeconfig => files::act_kubeconfig(cx),
            Action::Ready(ready) => ready.act(cx),
            Action::Dns(dns) => dns.act(cx),
            Action::KubeletAccess => kubelet_access::act(cx),
            Action::Publish => publish::act(cx),
            Action::Scrub => scrub::act(cx),
        }
    }

    /// Whether it only waits for what others do: there is nothing to be interrupted, and to look at once more.
    pub fn only_waits(&self) -> bool {
        match &self.action {
            Action::Ready(_) => true,
            Action::Dns(dns) => dns.only_waits(),
            _ => false,
        }
    }

    /// The files that the step writes, for `kindling plan`.
    pub fn files(&self) -> Vec<&FileSpec> {
        match &self.action {
            Action::Files(list) | Action::DropIns(list) => list.iter().collect(),
            Action::Kernel(kernel) => kernel.files.iter().collect(),
            Action::Service(service) => service.files.iter().collect(),
            Action::Certificates(certificates) => certificates.files.iter().collect(),
            Action::Etcd(member) => vec![&member.config],
            Action::Init(init) => vec![&init.config],
            Action::Join(join) => vec![&join.discovery, &join.config],
            _ => Vec::new(),
        }
    }

    /// The commands that the step may run, for `kindling plan`.
    pub fn commands(&self) -> Vec<String> {
        match &self.action {
            Action::Kernel(kernel) if !kernel.container => {
                kernel.modules.iter().map(|m| format!("modprobe {m}")).collect()
            }
            Action::SwapOff => vec!["swapoff --all".into()],
            Action::DropIns(_) => vec!["systemctl daemon-reload".into(), files::TRY_RESTART.join(" ")],
            Action::Service(service) => vec![format!("systemctl enable --now {}", service.unit)],
            Action::Off(units) => vec![format!("systemctl disable --now {}", units.join(" "))],
            Action::Certificates(certificates) => certificates.commands(),
            Action::Etcd(_) => vec!["systemctl enable --now etcd.service".into()],
            Action::Init(_) => vec![format!("kubeadm init --config {}", crate::plan::KUBEADM_FILE)],
            Action::Join(_) => vec![format!("kubeadm join --config {}", crate::plan::KUBEADM_FILE)],
            Action::Addons(addons) => {
                addons.names.iter().map(|n| format!("kubectl apply -f {}", addons::manifest(n))).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Preflight's findings were made from the facts; here they become one report.
fn preflight(findings: &[crate::preflight::Finding], cx: &mut Context<'_>) -> Result<Found, StepError> {
    let (warnings, errors): (Vec<_>, Vec<_>) = findings.iter().partition(|f| f.weight == Weight::Warning);
    for warning in &warnings {
        (cx.waiting)(&format!("warning: {}", warning.message));
    }
    if errors.is_empty() {
        let remark = (!warnings.is_empty())
            .then(|| warnings.iter().map(|f| f.message.clone()).collect::<Vec<_>>().join("; "));
        return Ok(Found::Matches(remark));
    }
    let list = |text: fn(&crate::preflight::Finding) -> &String| {
        errors.iter().map(|f| text(f).clone()).collect::<Vec<_>>().join("; ")
    };
    Err(StepError {
        cause: list(|f| &f.message),
        remedy: list(|f| &f.remedy),
        retry: errors.iter().all(|f| f.weight == Weight::Passing),
    })
}
