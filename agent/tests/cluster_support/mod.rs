//! What the tests of the operator's side share.
#![allow(dead_code)] // each test file uses a part

#[path = "../../../tests/lib/here.rs"]
pub mod here;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use kindling::cluster::{Cluster, KeyPairPem, Pair, Secrets, new};
use kindling::input::Source;
use kindling::role::types::Secret;
use time::OffsetDateTime;
use time::macros::datetime;

/// The clock of the tests.
pub const NOW: OffsetDateTime = datetime!(2026-01-31 12:00 UTC);

/// Real keys, made once per test run: none are kept in the repository.
pub static REAL: LazyLock<Secrets> = LazyLock::new(|| Secrets::generate(NOW).unwrap());

/// Secrets that anybody sees are none, for golden files: the PEM texts have no keys in them.
pub fn dummies() -> Secrets {
    let pem = |label: &str, what: &str| {
        format!(
            "-----BEGIN {label}-----\n{}shortenedshortened\n-----END {label}-----\n",
            what.replace('-', "")
        )
    };
    let pair = |what: &str| Pair {
        certificate: pem("CERTIFICATE", what),
        key: Secret::new(pem("PRIVATE KEY", what)),
    };
    Secrets {
        token: "abcdef.0123456789abcdef".parse().unwrap(),
        token_made: NOW,
        vrrp_password: Secret::new("dummyvrr"),
        stats_password: Secret::new("dummystats"),
        ca: pair("kubernetes"),
        front_proxy_ca: pair("front-proxy-ca"),
        etcd_ca: pair("etcd-ca"),
        service_account: KeyPairPem {
            public: pem("PUBLIC KEY", "sa"),
            key: Secret::new(pem("PRIVATE KEY", "sa")),
        },
        admin: pair("admin"),
        recipients: Vec::new(),
        token_ends: None,
        registries: [("harbor.kang.org".to_owned(), Secret::new("dummyharbor"))].into(),
    }
}

/// A cluster file that `kindling new` offers.
pub fn example(name: &str) -> Cluster {
    let (_, text) = new::EXAMPLES.iter().find(|(known, _)| *known == name).unwrap();
    cluster(text)
}

pub fn cluster(text: &str) -> Cluster {
    Cluster::parse(Source::new("cluster.toml", text)).unwrap_or_else(|report| panic!("{report}")).0
}

/// A folder of its own, removed at the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("kindling-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Compares with a golden file; `UPDATE_GOLDEN=1` writes it.
pub fn assert_golden(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(
        text == expected,
        "{} differs; `UPDATE_GOLDEN=1 cargo test` writes it anew:\n{text}",
        path.display()
    );
}

pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cluster").join(name)
}

/// Standard output and standard error of a tool, `None` (and a word about it) where there is no such tool.
pub fn run(tool: &str, args: &[&str]) -> Option<(bool, String)> {
    match Command::new(tool).args(args).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
        }
        Err(error) => {
            here::skip(&format!("{tool} cannot be run here: {error}"));
            None
        }
    }
}
