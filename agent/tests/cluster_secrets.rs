//! `kindling new` and the secrets file: what is made, what is refused, and in which words.

mod cluster_support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use cluster_support::*;
use kindling::cluster::{Cluster, Secrets, SecretsFile, new};
use kindling::input::{Report, Source};
use time::Duration;

fn parse(text: &str, cluster: Option<&Cluster>) -> Result<(Secrets, Report), Report> {
    Secrets::parse(Source::new("secrets.toml", text), cluster, NOW)
}

/// Real secrets in which `change` was done to the text; what is said of them, without the places.
fn told(cluster: Option<&Cluster>, change: impl FnOnce(String) -> String) -> Vec<String> {
    let text = change(REAL.to_toml().expose().to_owned());
    let report = match parse(&text, cluster) {
        Ok((_, report)) | Err(report) => report,
    };
    assert!(!report.to_string().contains(REAL.token.expose()), "the token was shown");
    report.problems.iter().map(|p| format!("{}: {}", p.key, p.message)).collect()
}

fn swap(text: String, one: &str, other: &str) -> String {
    assert!(text.contains(one), "nothing to change");
    text.replace(one, other)
}

#[test]
fn what_is_made_is_valid_and_reads_back() {
    let text = REAL.to_toml();
    let (read, report) = parse(text.expose(), Some(&example("lecture"))).unwrap_or_else(|r| panic!("{r}"));
    assert!(report.problems.is_empty(), "{report}");
    assert_eq!(read.to_toml(), text);
    assert_eq!(read.vrrp_password.expose().len(), 8);
    assert_eq!(read.token_made, NOW);
}

#[test]
fn debug_shows_no_secret() {
    let shown = format!("{:?}", *REAL);
    for secret in
        [REAL.token.expose(), REAL.vrrp_password.expose(), REAL.ca.key.expose().lines().nth(1).unwrap()]
    {
        assert!(!shown.contains(secret));
    }
}

#[test]
fn openssl_reads_the_certificates_as_kubeadm_makes_them() {
    let scratch = Scratch::new();
    let ca = scratch.write("ca.crt", &REAL.ca.certificate);
    let admin = scratch.write("admin.crt", &REAL.admin.certificate);
    let show = ["x509", "-noout", "-subject", "-ext", "basicConstraints,keyUsage,extendedKeyUsage", "-in"];
    let Some((good, text)) = run("openssl", &[&show[..], &[ca.to_str().unwrap()]].concat()) else { return };
    assert!(good, "{text}");
    // openssl 3.2 has no spaces around the sign
    let text = text.replace(" = ", "=");
    for part in ["CN=kubernetes", "CA:TRUE", "Digital Signature, Key Encipherment, Certificate Sign"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let (_, text) = run("openssl", &[&show[..], &[admin.to_str().unwrap()]].concat()).unwrap();
    let text = text.replace(" = ", "=");
    for part in ["CN=kubernetes-admin", "O=system:masters", "TLS Web Client Authentication"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let at = NOW.unix_timestamp().to_string();
    let verify = ["verify", "-attime", &at, "-CAfile", ca.to_str().unwrap(), admin.to_str().unwrap()];
    let (good, text) = run("openssl", &verify).unwrap();
    assert!(good, "{text}");
}

#[test]
fn a_bad_token_is_not_quoted() {
    let said = told(None, |t| swap(t, REAL.token.expose(), "abcdef.0123"));
    assert_eq!(
        said,
        ["token.value: not a bootstrap token (6 characters, a dot, 16 characters, of a-z and 0-9)"]
    );
}

#[test]
fn a_token_that_expired_is_refused_unless_it_lives_for_ever() {
    let cluster = example("lecture");
    let said =
        told(Some(&cluster), |t| swap(t, "made = 2026-01-31T12:00:00Z", "made = 2026-01-30T06:00:00Z"));
    assert_eq!(
        said,
        [
            "token.made: the bootstrap token expired: it was made 30 hours ago and lives 24 (`token_ttl_hours` of the cluster file)"
        ]
    );
    let for_ever =
        self::cluster(&new::EXAMPLES[1].1.replace("services =", "token_ttl_hours = 0\nservices ="));
    let said =
        told(Some(&for_ever), |t| swap(t, "made = 2026-01-31T12:00:00Z", "made = 2020-01-30T06:00:00Z"));
    assert!(said.is_empty(), "{said:?}");
    let said = told(None, |t| swap(t, "made = 2026-01-31T12:00:00Z", "made = 2026-01-31"));
    assert_eq!(said, ["token.made: is not a date with a time and an offset"]);
}

#[test]
fn a_ca_must_match_its_key() {
    let said = told(None, |t| swap(t, REAL.ca.key.expose().trim_end(), REAL.etcd_ca.key.expose().trim_end()));
    assert_eq!(said, ["pki.ca_key: does not belong to the certificate: their public keys differ"]);
    let said = told(None, |t| swap(t, REAL.ca.key.expose().trim_end(), "lost"));
    assert_eq!(said, ["pki.ca_key: is not a private key in PEM (PKCS#8, or PKCS#1 for RSA)"]);
}

#[test]
fn a_certificate_that_is_no_ca_is_refused() {
    let said = told(None, |t| {
        let t = swap(t, REAL.front_proxy_ca.certificate.trim_end(), REAL.admin.certificate.trim_end());
        swap(t, REAL.front_proxy_ca.key.expose().trim_end(), REAL.admin.key.expose().trim_end())
    });
    assert_eq!(
        said,
        ["pki.front_proxy_ca: is not the certificate of a CA (basic constraints say CA:FALSE, or nothing)"]
    );
    let said = told(None, |t| swap(t, REAL.etcd_ca.certificate.trim_end(), "-----BEGIN NOTHING-----"));
    assert_eq!(said, ["pki.etcd_ca: is not a PEM certificate"]);
}

#[test]
fn certificates_that_ended_are_refused_and_those_that_soon_will_are_told() {
    let at = |days: i64| {
        let text = REAL.to_toml();
        let source = Source::new("secrets.toml", text.expose());
        let (Ok((_, report)) | Err(report)) = Secrets::parse(source, None, NOW + Duration::days(days));
        report.problems.iter().map(|p| format!("{}: {}", p.key, p.message)).collect::<Vec<_>>()
    };
    assert!(at(300).is_empty());
    assert_eq!(at(366), ["pki.admin: has ended"]);
    assert_eq!(at(3600)[0], "pki.ca: ends in 50 days, and every certificate of the cluster with it");
    assert_eq!(
        at(4000),
        [
            "pki.ca: has ended",
            "pki.front_proxy_ca: has ended",
            "pki.etcd_ca: has ended",
            "pki.admin: has ended"
        ]
    );
    assert_eq!(at(-1).len(), 4, "not valid yet");
}

#[test]
fn the_administrator_must_be_of_this_ca() {
    let other = Secrets::generate(NOW).unwrap();
    let said = told(None, |t| {
        let t = swap(t, REAL.admin.certificate.trim_end(), other.admin.certificate.trim_end());
        swap(t, REAL.admin.key.expose().trim_end(), other.admin.key.expose().trim_end())
    });
    assert_eq!(said, ["pki.admin: was not signed by `pki.ca`"]);
}

#[test]
fn the_service_account_keys_must_be_a_pair() {
    let said = told(None, |t| {
        swap(t, REAL.service_account.key.expose().trim_end(), REAL.ca.key.expose().trim_end())
    });
    assert_eq!(said, ["pki.sa_key: does not belong to `pki.sa_public`, or that is not a PEM public key"]);
}

#[test]
fn passwords_fit_their_programs() {
    let said = told(None, |t| swap(t, REAL.vrrp_password.expose(), "more than eight"));
    assert_eq!(said, ["vrrp.password: must have 1 to 8 characters, all of them letters or digits"]);
}

#[test]
fn logins_of_registries_are_whole_or_absent() {
    let cluster = cluster(&new::EXAMPLES[1].1.replace("# username", "username"));
    let said = told(Some(&cluster), |t| t);
    assert_eq!(
        said,
        ["registries: no password for harbor.kang.org, for which the cluster file names a user"]
    );
    let with = |t: String| {
        t.replace("\n[pki]", "\n[registries.\"harbor.kang.org\"]\npassword = \"123456\"\n\n[pki]")
    };
    assert!(told(Some(&cluster), with).is_empty());
    let said = told(Some(&example("lecture")), with);
    assert_eq!(
        said,
        ["registries: a password for harbor.kang.org, for which the cluster file names no user"]
    );
}

#[test]
fn new_writes_its_files_and_overwrites_none() {
    for (name, _) in new::EXAMPLES {
        let scratch = Scratch::new();
        let folder = scratch.path("cluster");
        let written = new::create(&folder, Some(name), NOW).unwrap();
        let names = ["cluster.toml", "secrets.toml", "cluster.schema.json"];
        assert_eq!(written, names.map(|name| folder.join(name)));
        let text = fs::read_to_string(&written[0]).unwrap();
        assert!(text.starts_with("#:schema ./cluster.schema.json\n"), "editors find the schema by it");
        let mode = fs::metadata(folder.join("secrets.toml")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let (cluster, report) = kindling::cluster::load(&written[0]).unwrap_or_else(|r| panic!("{r}"));
        assert!(report.problems.is_empty(), "{report}");
        Secrets::load(&written[1], Some(&cluster), NOW).unwrap_or_else(|r| panic!("{r}"));
    }
    for there in ["cluster.toml", "secrets.toml"] {
        let scratch = Scratch::new();
        let path = scratch.write(there, "precious");
        let error = new::create(&scratch.0, None, NOW).unwrap_err().to_string();
        let expected = format!(
            "{} is there already\n  remedy: choose another folder; to replace only what ends, use `kindling new --renew`",
            path.display()
        );
        assert_eq!(error, expected);
        assert_eq!(fs::read_to_string(path).unwrap(), "precious");
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1, "nothing was written");
    }
    let error = new::create(&Scratch::new().0, Some("huge"), NOW).unwrap_err().to_string();
    assert_eq!(
        error,
        "there is no example `huge`\n  remedy: choose one of template, lecture, stacked, single, demo, external-etcd"
    );
}

#[test]
fn renewing_replaces_what_ends_and_nothing_else() {
    let scratch = Scratch::new();
    let cluster = example("lecture");
    new::create(&scratch.path("c"), None, NOW).unwrap();
    let path = scratch.path("c/secrets.toml");
    let (old, _) = Secrets::load(&path, None, NOW).unwrap();
    let later = NOW + Duration::days(400);
    assert!(Secrets::load(&path, Some(&cluster), later).is_err());
    new::renew(&SecretsFile::new(&path, None), later).unwrap();
    let (renewed, report) = Secrets::load(&path, Some(&cluster), later).unwrap_or_else(|r| panic!("{r}"));
    assert!(report.problems.is_empty(), "{report}");
    assert_ne!(renewed.token, old.token);
    assert_ne!(renewed.admin.certificate, old.admin.certificate);
    assert_eq!(renewed.ca.certificate, old.ca.certificate);
    assert_eq!(renewed.service_account.public, old.service_account.public);
    assert_eq!(renewed.vrrp_password, old.vrrp_password);
}

#[test]
fn rotating_replaces_the_passwords_too_and_keeps_the_cluster() {
    let scratch = Scratch::new();
    new::create(&scratch.path("c"), None, NOW).unwrap();
    let path = scratch.path("c/secrets.toml");
    let (old, _) = Secrets::load(&path, None, NOW).unwrap();
    new::rotate(&SecretsFile::new(&path, None), NOW).unwrap();
    let (new, _) = Secrets::load(&path, None, NOW).unwrap();
    assert_ne!(new.token, old.token);
    assert_ne!(new.vrrp_password, old.vrrp_password);
    assert_ne!(new.stats_password, old.stats_password);
    assert_eq!((new.ca.key, new.etcd_ca.key), (old.ca.key, old.etcd_ca.key));
    assert_eq!(new.service_account.key, old.service_account.key);
}

#[test]
fn a_file_that_others_may_read_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.write("secrets.toml", REAL.to_toml().expose());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let report = Secrets::load(&path, None, NOW).unwrap_err().to_string();
    let expected = format!(
        "{}:1:1: error: its mode is 0640: others than its owner may read or change the secrets in it\n  \
         remedy: chmod 0600 it; if others had access to it, make new secrets",
        path.display()
    );
    assert_eq!(report, expected);
}

#[test]
fn a_file_that_is_not_there_or_empty_or_not_text_is_told() {
    let scratch = Scratch::new();
    let cases: [(&str, Option<&[u8]>, &str); 3] = [
        ("missing.toml", None, "there is no such file"),
        ("empty.toml", Some(b""), "the file is empty"),
        ("binary.toml", Some(&[0xff, 0xfe, 0]), "is not a text file (UTF-8)"),
    ];
    for (name, bytes, message) in cases {
        let path = scratch.path(name);
        if let Some(bytes) = bytes {
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        for report in
            [Secrets::load(&path, None, NOW).unwrap_err(), kindling::cluster::load(&path).unwrap_err()]
        {
            let problems: Vec<_> = report.problems.iter().map(|p| p.message.as_str()).collect();
            assert_eq!(problems, [message], "{name}");
        }
    }
}
