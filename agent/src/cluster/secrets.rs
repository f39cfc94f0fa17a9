//! `secrets.toml`: what must not stand in the cluster file. It is made once by `kindling new`, and from
//! then on nothing random happens: the same two files give the same seeds.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::Cluster;
use super::file::FileError;
use super::pki::{self, Flaw, KeyPairPem, Pair, PkiError};
use super::sealed::{self, SecretsFile};
use crate::input::{Report, Section, Source};
use crate::role::types::{BootstrapToken, Secret};

/// The newest secrets file version this binary reads.
const VERSION: i64 = 1;

const RENEW: &str = "before the cluster is formed: make a new one with `kindling new --renew`; for a node of a cluster \
                     that is up: `kindling render --node NAME` has the cluster make one";
const ANEW: &str = "take the file from a backup, or make a new one in another folder with `kindling new`: \
                    a cluster that is up already knows only its own keys";
const REGISTRY: &str = "write [registries.\"HOST\"] password = \"...\"";

/// What is done about what has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    Refused,
    /// The token is replaced by one that the cluster makes, or looked at again.
    Token,
    /// All of it is replaced.
    All,
}

/// Validated secrets. Their `Debug` shows none of them.
#[derive(Debug, Clone)]
pub struct Secrets {
    pub token: BootstrapToken,
    /// When the token was made: its life is counted from here until the cluster counts itself.
    pub token_made: OffsetDateTime,
    /// Of a token that the cluster made, which is in no file.
    pub token_ends: Option<OffsetDateTime>,
    /// 1-8 characters, all that keepalived takes.
    pub vrrp_password: Secret,
    pub stats_password: Secret,
    pub ca: Pair,
    pub front_proxy_ca: Pair,
    pub etcd_ca: Pair,
    pub service_account: KeyPairPem,
    pub admin: Pair,
    /// Passwords by the registry's host, as in the cluster file.
    pub registries: BTreeMap<String, Secret>,
    /// Age recipients that the file is encrypted for; a plain file has none.
    pub recipients: Vec<String>,
}

impl Secrets {
    /// New ones, all of them random.
    pub fn generate(now: OffsetDateTime) -> Result<Self, PkiError> {
        let now = whole_seconds(now);
        let ca = pki::authority("kubernetes", now)?;
        Ok(Self {
            token: new_token()?,
            token_made: now,
            vrrp_password: Secret::new(pki::password(8)?),
            stats_password: Secret::new(pki::password(24)?),
            front_proxy_ca: pki::authority("front-proxy-ca", now)?,
            etcd_ca: pki::authority("etcd-ca", now)?,
            service_account: pki::key_pair()?,
            admin: pki::admin(&ca, now)?,
            ca,
            registries: BTreeMap::new(),
            recipients: Vec::new(),
            token_ends: None,
        })
    }

    /// The same, with a new bootstrap token and a new administrator's certificate: the two that end.
    pub fn renewed(self, now: OffsetDateTime) -> Result<Self, PkiError> {
        let now = whole_seconds(now);
        Ok(Self { token: new_token()?, token_made: now, admin: pki::admin(&self.ca, now)?, ..self })
    }

    /// As [`Secrets::renewed`], with new passwords, too: all that may be another one in a cluster that is up.
    pub fn rotated(self, now: OffsetDateTime) -> Result<Self, PkiError> {
        Ok(Self {
            vrrp_password: Secret::new(pki::password(8)?),
            stats_password: Secret::new(pki::password(24)?),
            ..self.renewed(now)?
        })
    }

    /// With a token that the cluster made.
    pub fn with_token(self, token: BootstrapToken, ends: OffsetDateTime) -> Self {
        Self { token, token_ends: Some(ends), ..self }
    }

    /// The file's bytes: encrypted where it has recipients.
    pub fn to_file(&self, path: &Path) -> Result<Vec<u8>, FileError> {
        let text = self.to_toml();
        if self.recipients.is_empty() {
            return Ok(text.expose().as_bytes().to_vec());
        }
        sealed::seal(&text, &self.recipients, path)
    }

    /// When the token ends at the latest, as long as the cluster has not begun to count itself.
    pub fn token_expires(&self, cluster: &Cluster) -> Option<OffsetDateTime> {
        let life = Duration::hours(i64::from(cluster.token_ttl_hours));
        self.token_ends.or_else(|| (!life.is_zero()).then(|| self.token_made + life))
    }

    /// Reads and validates a secrets file, which must be its owner's alone. With a cluster also whether
    /// the two fit, and whether the token would be refused at `now`.
    pub fn load(
        path: &Path,
        cluster: Option<&Cluster>,
        now: OffsetDateTime,
    ) -> Result<(Self, Report), Report> {
        Self::load_with(&SecretsFile::new(path, None), cluster, now, Expired::Refused)
    }

    /// As [`Secrets::load`], where something may have ended.
    pub fn load_with(
        from: &SecretsFile,
        cluster: Option<&Cluster>,
        now: OffsetDateTime,
        expired: Expired,
    ) -> Result<(Self, Report), Report> {
        crate::input::read(from.read()?, |root| read(root, cluster, now, expired))
    }

    pub fn parse(
        source: Source,
        cluster: Option<&Cluster>,
        now: OffsetDateTime,
    ) -> Result<(Self, Report), Report> {
        crate::input::read(source, |root| read(root, cluster, now, Expired::Refused))
    }

    /// The text that [`Secrets::parse`] reads back.
    pub fn to_toml(&self) -> Secret {
        let mut text = String::from(
            "# Everything secret of this cluster, made by `kindling new`. Keep it 0600, keep a copy in a safe\n\
             # place, and never commit it: whoever has it owns the cluster.\n\
             version = 1\n",
        );
        let made = self.token_made.format(&Rfc3339).expect("RFC 3339 knows every year that a clock shows");
        let mut line = |line: std::fmt::Arguments<'_>| text_line(&mut text, line);
        if !self.recipients.is_empty() {
            let list: Vec<String> = self.recipients.iter().map(|r| format!("\"{r}\"")).collect();
            line(format_args!(
                "# This file is encrypted for these whenever Kindling writes it.\nage_recipients = [{}]",
                list.join(", ")
            ));
        }
        line(format_args!("\n# Lets nodes join. `kindling new --renew` makes a new one."));
        line(format_args!("[token]\nvalue = \"{}\"\nmade = {made}", self.token.expose()));
        line(format_args!("\n[vrrp]\npassword = \"{}\"", self.vrrp_password.expose()));
        line(format_args!(
            "\n# haproxy's page of figures; the user is `kindling`.\n[stats]\npassword = \"{}\"",
            self.stats_password.expose()
        ));
        line(format_args!("\n# Of registries that the cluster file names with a `username`:"));
        line(format_args!("# [registries.\"harbor.example.org\"]\n# password = \"...\""));
        for (host, password) in &self.registries {
            let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
            line(format_args!("[registries.{}]\npassword = {}", quoted(host), quoted(password.expose())));
        }
        line(format_args!("\n[pki]"));
        for (key, pem) in [
            ("ca", self.ca.certificate.as_str()),
            ("ca_key", self.ca.key.expose()),
            ("front_proxy_ca", &self.front_proxy_ca.certificate),
            ("front_proxy_ca_key", self.front_proxy_ca.key.expose()),
            ("etcd_ca", &self.etcd_ca.certificate),
            ("etcd_ca_key", self.etcd_ca.key.expose()),
            ("sa_public", &self.service_account.public),
            ("sa_key", self.service_account.key.expose()),
            ("admin", &self.admin.certificate),
            ("admin_key", self.admin.key.expose()),
        ] {
            line(format_args!("{key} = '''\n{}\n'''", pem.replace('\r', "").trim_end()));
        }
        Secret::new(text)
    }
}

fn text_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a String takes every text");
}

fn whole_seconds(now: OffsetDateTime) -> OffsetDateTime {
    now.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).expect("0 is a number of nanoseconds")
}

pub fn new_token() -> Result<BootstrapToken, PkiError> {
    let text = format!("{}.{}", pki::password(6)?, pki::password(16)?);
    Ok(text.parse().expect("the alphabet is the token's"))
}

fn read(
    root: &mut Section<'_, '_>,
    cluster: Option<&Cluster>,
    now: OffsetDateTime,
    expired: Expired,
) -> Option<Secrets> {
    if let Some(version) = root.required::<i64>("version", "write version = 1 as the first line")
        && version != VERSION
    {
        root.error(
            "version",
            format!("this secrets file has version {version}, this kindling reads {VERSION}"),
            "use the kindling that wrote it, or a newer one",
        );
    }
    let recipients = root.optional("age_recipients", "write a list of age1...");
    let token = root.required_section("token", ANEW).map(|s| read_token(s, cluster, now, expired));
    let vrrp_password = root.required_section("vrrp", ANEW).and_then(|s| read_password(s, 8));
    let stats_password = root.required_section("stats", ANEW).and_then(|s| read_password(s, 64));
    let registries = root.section("registries").map(read_registries).unwrap_or_default();
    if let Some(cluster) = cluster {
        check_registries(root, cluster, &registries);
    }
    let pki = root.required_section("pki", ANEW).and_then(|s| read_pki(s, now, expired));
    let (token, token_made) = token??;
    let [ca, front_proxy_ca, etcd_ca, admin, sa] = pki?;
    Some(Secrets {
        token,
        token_made,
        vrrp_password: vrrp_password?,
        stats_password: stats_password?,
        ca,
        front_proxy_ca,
        etcd_ca,
        admin,
        service_account: KeyPairPem { public: sa.certificate, key: sa.key },
        registries: registries
            .into_iter()
            .map(|(host, password)| Some((host, password?)))
            .collect::<Option<_>>()?,
        recipients: recipients.unwrap_or_default(),
        token_ends: None,
    })
}

fn read_token(
    mut s: Section<'_, '_>,
    cluster: Option<&Cluster>,
    now: OffsetDateTime,
    expired: Expired,
) -> Option<(BootstrapToken, OffsetDateTime)> {
    let value = s.required_secret("value", RENEW);
    let made: Option<toml::value::Datetime> =
        s.required("made", "write when it was made, as in 2026-01-31T12:00:00Z");
    let made = made.and_then(|made| {
        let time = OffsetDateTime::parse(&made.to_string(), &Rfc3339);
        if time.is_err() {
            s.error("made", "is not a date with a time and an offset", "write it as in 2026-01-31T12:00:00Z");
        }
        time.ok()
    });
    if let (Some(made), Some(cluster), Expired::Refused) = (made, cluster, expired) {
        let life = Duration::hours(i64::from(cluster.token_ttl_hours));
        if !life.is_zero() && made + life <= now {
            s.error(
                "made",
                format!(
                    "the bootstrap token expired: it was made {} hours ago and lives {} (`token_ttl_hours` of the cluster file)",
                    (now - made).whole_hours(),
                    cluster.token_ttl_hours
                ),
                RENEW,
            );
        }
    }
    s.finish();
    Some((value?, made?))
}

fn read_password(mut s: Section<'_, '_>, longest: usize) -> Option<Secret> {
    let password: Option<Secret> = s.required_secret("password", ANEW);
    if let Some(text) = &password
        && (!(1..=longest).contains(&text.expose().len())
            || !text.expose().bytes().all(|b| b.is_ascii_alphanumeric()))
    {
        s.error(
            "password",
            format!("must have 1 to {longest} characters, all of them letters or digits"),
            "choose another one; its users are machines only",
        );
    }
    s.finish();
    password
}

fn read_registries(mut s: Section<'_, '_>) -> BTreeMap<String, Option<Secret>> {
    let mut registries = BTreeMap::new();
    for host in s.keys() {
        let Some(mut section) = s.section(&host) else { continue };
        let password: Option<Secret> = section.required_secret("password", REGISTRY);
        if password.as_ref().is_some_and(|p| {
            p.expose().is_empty() || !p.expose().bytes().all(|b| b.is_ascii_graphic() || b == b' ')
        }) {
            section.error(
                "password",
                "is empty or has characters beyond printable ASCII",
                "give the registry's user another password, or a token of its own",
            );
        }
        section.finish();
        registries.insert(host, password);
    }
    registries
}

/// The cluster file names the users, this file their passwords: neither may stand alone.
fn check_registries(root: &Section<'_, '_>, cluster: &Cluster, passwords: &BTreeMap<String, Option<Secret>>) {
    for registry in &cluster.registries {
        if registry.username.is_some() && !passwords.contains_key(&registry.host) {
            root.error(
                "registries",
                format!("no password for {}, for which the cluster file names a user", registry.host),
                format!("write [registries.\"{}\"] password = \"...\"", registry.host),
            );
        }
    }
    for host in passwords.keys() {
        if !cluster.registries.iter().any(|r| r.host == *host && r.username.is_some()) {
            root.error(
                "registries",
                format!("a password for {host}, for which the cluster file names no user"),
                format!("add [[registries]] host = \"{host}\" and its `username` to the cluster file, or remove it here"),
            );
        }
    }
}

/// The three CAs, the administrator's certificate and the service accounts' keys, in this order.
fn read_pki(mut s: Section<'_, '_>, now: OffsetDateTime, expired: Expired) -> Option<[Pair; 5]> {
    let mut pair = |certificate: &str, key: &str| {
        let certificate: Option<String> = s.required(certificate, ANEW);
        let key: Option<Secret> = s.required_secret(key, ANEW);
        Some(Pair { certificate: certificate?, key: key? })
    };
    let ca = pair("ca", "ca_key");
    let front_proxy_ca = pair("front_proxy_ca", "front_proxy_ca_key");
    let etcd_ca = pair("etcd_ca", "etcd_ca_key");
    let admin = pair("admin", "admin_key");
    let sa = pair("sa_public", "sa_key");
    for (name, pair) in [("ca", &ca), ("front_proxy_ca", &front_proxy_ca), ("etcd_ca", &etcd_ca)] {
        let Some(pair) = pair else { continue };
        for flaw in pki::check_authority(&pair.certificate, &pair.key, now) {
            report(&s, name, flaw, ANEW);
        }
        warn_of_end(&s, name, &pair.certificate, now);
    }
    if let (Some(ca), Some(admin), true) = (&ca, &admin, expired != Expired::All) {
        for flaw in pki::check_client(&admin.certificate, &admin.key, &ca.certificate, now) {
            report(&s, "admin", flaw, "make a new one with `kindling new --renew`");
        }
    }
    if let Some(sa) = &sa {
        if let Some(flaw) = pki::check_key_pair(&sa.certificate, &sa.key) {
            let message = match flaw {
                Flaw::WrongKey => "does not belong to `pki.sa_public`, or that is not a PEM public key",
                other => other.message(),
            };
            s.error("sa_key", message, ANEW);
        } else if !pki::is_rsa_or_ecdsa(&sa.key) {
            s.error("sa_key", "is neither an RSA nor an ECDSA key, the kinds that kubeadm takes", ANEW);
        }
    }
    s.finish();
    Some([ca?, front_proxy_ca?, etcd_ca?, admin?, sa?])
}

fn report(s: &Section<'_, '_>, name: &str, flaw: Flaw, remedy: &str) {
    let key = if flaw.is_of_key() { format!("{name}_key") } else { name.to_owned() };
    s.error(&key, flaw.message(), remedy);
}

fn warn_of_end(s: &Section<'_, '_>, name: &str, certificate: &str, now: OffsetDateTime) {
    let Some(end) = pki::end_of(certificate) else { return };
    let left = end - now;
    if left > Duration::ZERO && left < Duration::days(90) {
        s.warning(
            name,
            format!("ends in {} days, and every certificate of the cluster with it", left.whole_days()),
            "plan for a new cluster or a rotation of its CA",
        );
    }
}
