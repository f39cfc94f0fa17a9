//! Certificates that this machine issues for itself from a CA in its role file, as kubeadm does for its own.

use std::path::PathBuf;

use time::Duration;

use super::{Context, Found, files};
use crate::cluster::{Leaf, Pair, end_of, issue, outdated};
use crate::error::StepError;
use crate::host::{Command, Host, date, read_text};
use crate::plan::FileSpec;
use crate::render::ETCD_PKI;
use crate::role::NodeSpec;

/// As kubeadm's leaves.
const LIFE: Duration = Duration::days(365);
/// Set-group-id: what is written into the folder belongs to its group.
const GROUP_FOLDER: u32 = 0o2750;

#[derive(Debug, Clone, PartialEq)]
pub struct Certificates {
    pub ca: Pair,
    /// A folder to be made, and the group that may read in it.
    pub folder: Option<(&'static str, &'static str)>,
    /// Besides the leaves: the CA's certificate.
    pub files: Vec<FileSpec>,
    pub leaves: Vec<LeafFile>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LeafFile {
    /// Without `.crt` and `.key`.
    pub path: PathBuf,
    pub common_name: String,
    /// DNS names and addresses; empty for a client.
    pub names: Vec<String>,
    /// Of the key.
    pub mode: u32,
}

impl LeafFile {
    fn leaf(&self, life: Duration) -> Leaf<'_> {
        Leaf {
            common_name: &self.common_name,
            organization: None,
            names: &self.names,
            server: !self.names.is_empty(),
            life,
        }
    }
    fn certificate(&self) -> PathBuf {
        self.path.with_extension("crt")
    }
    fn key(&self) -> PathBuf {
        self.path.with_extension("key")
    }
}

impl Certificates {
    /// A member's own: towards clients, towards the other members, and the agent's as a client.
    pub fn of_etcd_member(spec: &NodeSpec) -> Option<Self> {
        let role = spec.etcd()?;
        let names = vec![
            spec.name.to_string(),
            "localhost".into(),
            spec.address().to_string(),
            "127.0.0.1".into(),
            "::1".into(),
        ];
        let at = |name: &str| PathBuf::from(ETCD_PKI).join(name);
        let leaf = |file: &str, common_name: &str, names: &[String], mode| LeafFile {
            path: at(file),
            common_name: common_name.to_owned(),
            names: names.to_vec(),
            mode,
        };
        Some(Self {
            ca: role.authority(),
            folder: Some((ETCD_PKI, "etcd")),
            files: vec![FileSpec::public(at("ca.crt"), role.ca.clone())],
            leaves: vec![
                leaf("server", spec.name.as_str(), &names, 0o640),
                leaf("peer", spec.name.as_str(), &names, 0o640),
                // etcd itself has no use for it
                leaf("client", "kube-etcd-healthcheck-client", &[], 0o600),
            ],
        })
    }

    /// The API server's, towards an external etcd: kubeadm issues it only for a local one.
    pub fn of_etcd_client(spec: &NodeSpec) -> Option<Self> {
        let role = spec.control_plane()?;
        role.etcd.as_ref()?;
        Some(Self {
            ca: role.pki.etcd_authority(),
            folder: None,
            files: Vec::new(),
            leaves: vec![LeafFile {
                path: "/etc/kubernetes/pki/apiserver-etcd-client".into(),
                common_name: "kube-apiserver-etcd-client".into(),
                names: Vec::new(),
                mode: 0o600,
            }],
        })
    }

    pub fn look(&self, cx: &mut Context<'_>) -> Result<Found, StepError> {
        let mut list = Vec::new();
        if self.lacks_folder(cx.host)? {
            list.extend(self.folder.map(|(path, _)| path.to_owned()));
        }
        list.extend(files::differing(cx.host, &self.files)?);
        for leaf in &self.leaves {
            if let Some(reason) = self.flaw(cx.host, leaf)? {
                list.push(format!("{} {reason}", leaf.certificate().display()));
            }
        }
        Ok(if list.is_empty() { Found::matches() } else { Found::Differs(list.join(", ")) })
    }

    pub fn act(&self, cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
        let issued = self.ensure(cx.host)?;
        Ok((!issued.is_empty()).then(|| format!("issued {}", issued.join(", "))))
    }

    /// In words: no command issues them.
    pub fn commands(&self) -> Vec<String> {
        self.leaves.iter().map(|leaf| format!("(issue) {}", leaf.certificate().display())).collect()
    }

    /// Issues what is missing or near its end; returns the names.
    pub fn ensure(&self, host: &dyn Host) -> Result<Vec<String>, StepError> {
        if let (Some((path, group)), true) = (self.folder, self.lacks_folder(host)?) {
            let mode = format!("{GROUP_FOLDER:o}");
            host.run(&Command::new("install", ["-d", "-m", &mode, "-o", "root", "-g", group, path]))?;
        }
        for file in &self.files {
            files::write(host, file)?;
        }
        let mut issued = Vec::new();
        for leaf in &self.leaves {
            if self.flaw(host, leaf)?.is_none() {
                continue;
            }
            let now = date(host);
            let left = end_of(&self.ca.certificate).map_or(Duration::ZERO, |end| end - now);
            if left <= Duration::ZERO {
                return Err(StepError::lasting(
                    "the CA in this role file has ended, or is not a certificate, so nothing can be issued from it",
                    "compare this machine's clock; else make a new cluster: a CA lives ten years",
                ));
            }
            let pair = issue(&self.ca, &leaf.leaf(LIFE.min(left)), now).map_err(|error| {
                StepError::lasting(
                    format!("cannot issue {}: {error}", leaf.certificate().display()),
                    "the CA of this role file cannot be used: render the seed again with the cluster's secrets",
                )
            })?;
            // A key without its certificate is found to be of another one, and both are made again.
            files::write(
                host,
                &FileSpec { mode: leaf.mode, ..FileSpec::secret(leaf.key(), pair.key.expose()) },
            )?;
            files::write(host, &FileSpec::public(leaf.certificate(), pair.certificate))?;
            issued.push(leaf.path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        Ok(issued)
    }

    fn lacks_folder(&self, host: &dyn Host) -> Result<bool, StepError> {
        let Some((path, _)) = self.folder else { return Ok(false) };
        let mode = host.mode(path.as_ref()).map_err(|e| StepError::file("read", path.as_ref(), &e))?;
        Ok(mode != Some(GROUP_FOLDER))
    }

    fn flaw(&self, host: &dyn Host, leaf: &LeafFile) -> Result<Option<String>, StepError> {
        let (Some(certificate), Some(key)) =
            (read_text(host, leaf.certificate()), read_text(host, leaf.key()))
        else {
            return Ok(Some("is missing".into()));
        };
        let path = leaf.key();
        if host.mode(&path).map_err(|e| StepError::file("read", &path, &e))? != Some(leaf.mode) {
            return Ok(Some(format!("has a key that is not {:04o}", leaf.mode)));
        }
        let pair = Pair { certificate, key: crate::role::types::Secret::new(key) };
        Ok(outdated(&pair, &self.ca.certificate, &leaf.leaf(LIFE), date(host)))
    }
}

/// kubeadm expects the API server's certificate for an external etcd to be there; its own reset takes it away.
pub fn before_kubeadm(cx: &mut Context<'_>) -> Result<(), StepError> {
    match Certificates::of_etcd_client(cx.spec) {
        Some(certificates) => certificates.ensure(cx.host).map(|_| ()),
        None => Ok(()),
    }
}
