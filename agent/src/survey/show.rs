//! The survey for people.

use std::fmt;

use super::Survey;
use crate::up::table;

impl fmt::Display for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_dash = |list: &[String]| if list.is_empty() { "-".to_owned() } else { list.join(",") };
        let row = |cells: &[&str]| cells.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        writeln!(f, "Kubernetes {} at {}\n", self.kubernetes, self.server)?;
        let mut rows = vec![row(&["NODE", "READY", "VERSION", "IMAGE", "ROLES", "PRESSURE", "TAINTS"])];
        rows.extend(self.nodes.iter().map(|n| {
            let ready = if n.ready { "True" } else { "FALSE" };
            row(&[
                &n.name,
                ready,
                &n.version,
                n.image.as_deref().unwrap_or("-"),
                &or_dash(&n.roles),
                &or_dash(&n.pressure),
                &or_dash(&n.taints),
            ])
        }));
        writeln!(f, "{}", table(rows, 9))?;
        let mut rows = vec![row(&["CONTROL PLANE", "API SERVER", "CONTROLLERS", "SCHEDULER", "ETCD"])];
        rows.extend(self.control_planes.iter().map(|p| {
            let etcd = p.etcd.as_deref().unwrap_or("external");
            row(&[&p.node, &p.apiserver, &p.controller_manager, &p.scheduler, etcd])
        }));
        writeln!(f, "{}", table(rows, 9))?;
        if !self.external_etcd.is_empty() {
            let mut rows = vec![row(&["EXTERNAL ETCD", "STATE"])];
            rows.extend(self.external_etcd.iter().map(|m| row(&[&m.name, &m.state])));
            writeln!(f, "{}", table(rows, 9))?;
        }
        let mut rows = vec![row(&["CERTIFICATE", "ENDS", "DAYS"])];
        rows.extend(self.certificates.iter().map(|c| row(&[&c.what, &c.ends, &c.days.to_string()])));
        writeln!(f, "{}", table(rows, 2))?;
        if let Some(vip) = &self.vip {
            match &vip.holder {
                Some(holder) => writeln!(f, "VIP {}: {holder} ({})", vip.address, vip.how)?,
                None => writeln!(f, "VIP {}: its holder is not known: {}", vip.address, vip.how)?,
            }
        }
        let on = if self.dns.nodes.is_empty() { "no machine".to_owned() } else { self.dns.nodes.join(", ") };
        writeln!(f, "cluster DNS: {} (on {on})", self.dns.state)?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        writeln!(f)?;
        for finding in &self.findings {
            writeln!(f, "{}: {}\n  remedy: {}", finding.about, finding.what, finding.remedy)?;
        }
        match self.findings.len() {
            0 => write!(f, "all is well"),
            1 => write!(f, "1 finding"),
            n => write!(f, "{n} findings"),
        }
    }
}
