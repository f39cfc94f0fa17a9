//! Keys, certificates and passwords: made here once, checked here whenever they are read.

use std::collections::BTreeSet;
use std::net::IpAddr;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData,
    RsaKeySize,
};
use time::{Duration, OffsetDateTime};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::role::types::Secret;

/// As kubeadm's own CAs (`CACertificateValidity` in its constants).
const CA_LIFE: Duration = Duration::days(3650);
/// As kubeadm's own leaves; `kindling new --renew` makes a new one.
const ADMIN_LIFE: Duration = Duration::days(365);
/// Certificates begin a little earlier, for nodes whose clock is behind at first boot.
const BACKDATE: Duration = Duration::hours(1);

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot make a key or a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("the kernel's random generator failed")]
    Random,
}

/// A certificate and its private key, PEM.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    pub certificate: String,
    pub key: Secret,
}

/// A bare key pair, PEM: PKIX "PUBLIC KEY" and PKCS#8 "PRIVATE KEY", both of which Go's `keyutil` reads.
#[derive(Debug, Clone)]
pub struct KeyPairPem {
    pub public: String,
    pub key: Secret,
}

/// RSA of 2048 bits, as kubeadm makes keys by default.
fn rsa() -> Result<KeyPair, PkiError> {
    Ok(KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?)
}

fn named(common_name: &str, now: OffsetDateTime, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = now - BACKDATE;
    params.not_after = now + life;
    params
}

/// A CA as kubeadm would make it, with the common name it would give it.
pub fn authority(common_name: &str, now: OffsetDateTime) -> Result<Pair, PkiError> {
    let key = rsa()?;
    let mut params = named(common_name, now, CA_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
    ];
    let certificate = params.self_signed(&key)?;
    Ok(Pair { certificate: certificate.pem(), key: Secret::new(key.serialize_pem()) })
}

/// A certificate that is no CA's.
#[derive(Debug, Clone, Copy)]
pub struct Leaf<'a> {
    pub common_name: &'a str,
    /// What Kubernetes takes for the user's group.
    pub organization: Option<&'a str>,
    /// DNS names and addresses, as text.
    pub names: &'a [String],
    /// For a server as well as a client.
    pub server: bool,
    pub life: Duration,
}

/// A new key, P-256 for its small cost, and a certificate for it that `ca` signs.
pub fn issue(ca: &Pair, leaf: &Leaf<'_>, now: OffsetDateTime) -> Result<Pair, PkiError> {
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(ca.key.expose())?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(leaf.names)?;
    let named = named(leaf.common_name, now, leaf.life);
    params.distinguished_name = named.distinguished_name;
    (params.not_before, params.not_after) = (named.not_before, named.not_after);
    if let Some(organization) = leaf.organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if leaf.server {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Pair { certificate: certificate.pem(), key: Secret::new(key.serialize_pem()) })
}

/// A client certificate that the API server takes for cluster-admin, as the one in kubeadm's super-admin.conf: it works
/// before kubeadm has bound the group of its admin.conf.
pub fn admin(ca: &Pair, now: OffsetDateTime) -> Result<Pair, PkiError> {
    let leaf = Leaf {
        common_name: "kubernetes-admin",
        organization: Some("system:masters"),
        names: &[],
        server: false,
        life: ADMIN_LIFE,
    };
    issue(ca, &leaf, now)
}

pub fn key_pair() -> Result<KeyPairPem, PkiError> {
    let key = rsa()?;
    Ok(KeyPairPem { public: key.public_key_pem(), key: Secret::new(key.serialize_pem()) })
}

/// `length` characters of a-z and 0-9, each as likely as any other.
pub fn password(length: usize) -> Result<String, PkiError> {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let random = SystemRandom::new();
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let mut byte = [0];
        random.fill(&mut byte).map_err(|_| PkiError::Random)?;
        // 252 is the last multiple of 36: what lies above would favour the first letters
        if byte[0] < 252 {
            text.push(char::from(ALPHABET[usize::from(byte[0] % 36)]));
        }
    }
    Ok(text)
}

/// What is wrong with a pair, and whether with its certificate or its key. Never quotes either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    NoCertificate,
    NotAnAuthority,
    NotYet,
    Ended,
    NoKey,
    WrongKey,
    WrongIssuer,
}

impl Flaw {
    /// The problem as an operator reads it.
    pub fn message(self) -> &'static str {
        match self {
            Self::NoCertificate => "is not a PEM certificate",
            Self::NotAnAuthority => {
                "is not the certificate of a CA (basic constraints say CA:FALSE, or nothing)"
            }
            Self::NotYet => "is not valid yet",
            Self::Ended => "has ended",
            Self::NoKey => "is not a private key in PEM (PKCS#8, or PKCS#1 for RSA)",
            Self::WrongKey => "does not belong to the certificate: their public keys differ",
            Self::WrongIssuer => "was not signed by `pki.ca`",
        }
    }

    pub fn is_of_key(self) -> bool {
        matches!(self, Self::NoKey | Self::WrongKey)
    }
}

fn der(pem: &str) -> Option<Vec<u8>> {
    // openssl may put a subject in front, and its letters would have to survive TOML and YAML
    if !pem.is_ascii() {
        return None;
    }
    let pem = Pem::iter_from_buffer(pem.as_bytes()).next()?.ok()?;
    (pem.label == "CERTIFICATE").then_some(pem.contents)
}

pub fn is_certificate(pem: &str) -> bool {
    der(pem).is_some_and(|bytes| X509Certificate::from_der(&bytes).is_ok())
}

fn check_dates(certificate: &X509Certificate<'_>, now: OffsetDateTime) -> Option<Flaw> {
    let validity = certificate.validity();
    if validity.not_after.to_datetime() <= now {
        Some(Flaw::Ended)
    } else if validity.not_before.to_datetime() > now {
        Some(Flaw::NotYet)
    } else {
        None
    }
}

/// Every flaw of a CA: its certificate, its life at `now`, and whether `key` is its own.
pub fn check_authority(certificate: &str, key: &Secret, now: OffsetDateTime) -> Vec<Flaw> {
    let key = KeyPair::from_pem(key.expose()).ok();
    let mut flaws: Vec<_> = key.is_none().then_some(Flaw::NoKey).into_iter().collect();
    let Some(bytes) = der(certificate) else {
        flaws.push(Flaw::NoCertificate);
        return flaws;
    };
    let Ok((_, certificate)) = X509Certificate::from_der(&bytes) else {
        flaws.push(Flaw::NoCertificate);
        return flaws;
    };
    if !certificate.is_ca() {
        flaws.push(Flaw::NotAnAuthority);
    }
    flaws.extend(check_dates(&certificate, now));
    if key.is_some_and(|key| key.subject_public_key_info() != certificate.public_key().raw) {
        flaws.push(Flaw::WrongKey);
    }
    flaws
}

/// Every flaw of a client certificate that `ca` should have signed.
pub fn check_client(certificate: &str, key: &Secret, ca: &str, now: OffsetDateTime) -> Vec<Flaw> {
    let key = KeyPair::from_pem(key.expose()).ok();
    let mut flaws: Vec<_> = key.is_none().then_some(Flaw::NoKey).into_iter().collect();
    let Some(bytes) = der(certificate) else {
        flaws.push(Flaw::NoCertificate);
        return flaws;
    };
    let Ok((_, certificate)) = X509Certificate::from_der(&bytes) else {
        flaws.push(Flaw::NoCertificate);
        return flaws;
    };
    flaws.extend(check_dates(&certificate, now));
    if key.is_some_and(|key| key.subject_public_key_info() != certificate.public_key().raw) {
        flaws.push(Flaw::WrongKey);
    }
    // a CA that cannot be read is a flaw of its own, found elsewhere
    if let Some(ca) = der(ca)
        && let Ok((_, ca)) = X509Certificate::from_der(&ca)
        && certificate.verify_signature(Some(ca.public_key())).is_err()
    {
        flaws.push(Flaw::WrongIssuer);
    }
    flaws
}

/// Why a certificate must be issued anew, if it must: it is not what `leaf` describes, or more than half of
/// its life is over and the CA allows for a longer one.
pub fn outdated(pair: &Pair, ca: &str, leaf: &Leaf<'_>, now: OffsetDateTime) -> Option<String> {
    let flaw = check_client(&pair.certificate, &pair.key, ca, now).into_iter().next();
    if let Some(flaw) = flaw {
        return Some(match flaw {
            Flaw::WrongIssuer => "was signed by another CA".into(),
            other => other.message().into(),
        });
    }
    let bytes = der(&pair.certificate)?;
    let (_, certificate) = X509Certificate::from_der(&bytes).ok()?;
    let common_name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    if common_name != Some(leaf.common_name) || names_of(&certificate) != leaf.names.iter().cloned().collect()
    {
        return Some("has other names".into());
    }
    let server = certificate.extended_key_usage().ok().flatten().is_some_and(|usage| usage.value.server_auth);
    if server != leaf.server {
        return Some("has another usage".into());
    }
    let end = certificate.validity().not_after.to_datetime();
    let possible = end_of(ca).map_or(now, |ca| ca.min(now + leaf.life));
    (end - now < leaf.life / 2 && possible - end > Duration::days(1))
        .then(|| format!("ends in {} days", (end - now).whole_days()))
}

/// The alternative names, as text.
fn names_of(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|extension| &extension.value.general_names);
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            },
            _ => None,
        })
        .collect()
}

/// What is wrong with a service-account key pair, if anything.
pub fn check_key_pair(public: &str, key: &Secret) -> Option<Flaw> {
    let Ok(key) = KeyPair::from_pem(key.expose()) else { return Some(Flaw::NoKey) };
    let public = Pem::iter_from_buffer(public.as_bytes()).next().and_then(Result::ok);
    match public {
        Some(pem) if pem.label == "PUBLIC KEY" && pem.contents == key.subject_public_key_info() => None,
        _ => Some(Flaw::WrongKey),
    }
}

/// Whether a private key is of a kind that kubeadm takes for service accounts (its pkiutil/pki_helpers.go).
pub fn is_rsa_or_ecdsa(key: &Secret) -> bool {
    let kinds = [&PKCS_RSA_SHA256, &PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384];
    KeyPair::from_pem(key.expose()).is_ok_and(|key| kinds.iter().any(|kind| key.is_compatible(kind)))
}

/// The time a certificate ends, where it is one.
pub fn end_of(certificate: &str) -> Option<OffsetDateTime> {
    validity(certificate).map(|(_, end)| end)
}

/// When a certificate begins and ends, where it is one.
pub fn validity(certificate: &str) -> Option<(OffsetDateTime, OffsetDateTime)> {
    let bytes = der(certificate)?;
    let (_, certificate) = X509Certificate::from_der(&bytes).ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.to_datetime(), validity.not_after.to_datetime()))
}
