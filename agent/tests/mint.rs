//! `kindling render --node`: a node that comes later gets a token that the cluster makes, or is told why not.

mod cluster_support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread::JoinHandle;

use cluster_support::*;
use kindling::cluster::pki::{Leaf, issue};
use kindling::cluster::{Pair, Secrets};
use kindling::input::Source;
use kindling::role::NodeSpec;
use kindling::role::types::Moment;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use time::{Duration, OffsetDateTime};

/// An API server for one request of an administrator; its thread ends with the request.
fn api(ca: &Pair, status: &'static str) -> (SocketAddr, JoinHandle<String>) {
    let names = ["kubernetes".to_owned(), "10.0.0.10".to_owned()];
    let leaf = Leaf {
        common_name: "kube-apiserver",
        organization: None,
        names: &names,
        server: true,
        life: Duration::days(1),
    };
    let pair = issue(ca, &leaf, OffsetDateTime::now_utc()).unwrap();
    let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(pair.key.expose().as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let stream = asked_within_a_minute(&listener);
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream);
        let mut asked = String::new();
        let mut bytes = [0; 4096];
        let ends = |asked: &str| {
            asked
                .split_once("\r\n\r\n")
                .is_some_and(|(_, body)| body.ends_with("}}") || body.ends_with("\"}"))
        };
        while !ends(&asked) {
            let n = stream.read(&mut bytes).unwrap();
            assert!(n > 0, "the request ended early: {asked}");
            asked.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
        }
        let body = r#"{"message":"not today"}"#;
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        asked
    });
    (address, thread)
}

/// A command that never asks must fail the test, not stop it.
fn asked_within_a_minute(listener: &TcpListener) -> TcpStream {
    let minute = std::time::Duration::from_secs(60);
    listener.set_nonblocking(true).unwrap();
    let begun = std::time::Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(minute)).unwrap();
                return stream;
            }
            Err(error) => assert!(begun.elapsed() < minute, "nobody asked: {error}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// A folder with a cluster file and secrets whose token was made so long ago.
fn folder(made: Duration) -> (Scratch, Secrets) {
    let scratch = Scratch::new();
    let secrets = Secrets::generate(OffsetDateTime::now_utc()).unwrap();
    let old = Secrets { token_made: OffsetDateTime::now_utc() - made, ..secrets.clone() };
    // Nobody answers there: the port is that of a service that no machine has any more.
    let text = "version = 1\nname = \"later\"\nkubernetes = \"v1.32.3\"\n[endpoint]\nby = \"external\"\n\
                host = \"localhost\"\nport = 9\n[network]\ngateway = \"10.0.0.2\"\n[nodes]\n\
                cp1 = { role = \"control-plane\", address = \"10.0.0.11/24\" }\n\
                w9 = { role = \"worker\", address = \"10.0.0.29/24\" }\n";
    scratch.write("cluster.toml", text);
    let path = scratch.write("secrets.toml", old.to_toml().expose());
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    (scratch, secrets)
}

fn render(scratch: &Scratch, args: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kindling"))
        .args(["render", "--node", "w9"])
        .args(args)
        .current_dir(&scratch.0)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    (output, said)
}

fn role(scratch: &Scratch) -> NodeSpec {
    let text = std::fs::read_to_string(scratch.path("seeds/w9/role.toml")).unwrap();
    NodeSpec::parse(Source::new("role.toml", text)).unwrap_or_else(|r| panic!("{r}")).0
}

#[test]
fn the_cluster_makes_a_token_although_that_of_the_secrets_has_expired() {
    let (scratch, secrets) = folder(Duration::days(9));
    let (address, asked) = api(&secrets.ca, "201 Created");
    let (output, said) = render(&scratch, &["--server", &format!("https://{address}")]);
    assert!(output.status.success(), "{said}");
    let asked = asked.join().unwrap();
    assert!(asked.starts_with("POST /api/v1/namespaces/kube-system/secrets HTTP/1.1\r\n"), "{asked}");
    let body: serde_json::Value = serde_json::from_str(asked.split_once("\r\n\r\n").unwrap().1).unwrap();

    let spec = role(&scratch);
    let kubernetes = spec.kubernetes().unwrap();
    let (id, secret) = kubernetes.token.expose().split_once('.').unwrap();
    assert_ne!(kubernetes.token, secrets.token);
    assert_eq!(body["type"], "bootstrap.kubernetes.io/token");
    assert_eq!(body["metadata"]["name"], format!("bootstrap-token-{id}"));
    let data = &body["stringData"];
    assert_eq!((data["token-id"].as_str(), data["token-secret"].as_str()), (Some(id), Some(secret)));
    assert_eq!(data["auth-extra-groups"], "system:bootstrappers:kubeadm:default-node-token");
    assert_eq!(data["usage-bootstrap-authentication"], "true");
    assert_eq!(data["expiration"], kubernetes.token_expires.unwrap().to_string());
    let Moment(end) = kubernetes.token_expires.unwrap();
    let left = end - OffsetDateTime::now_utc();
    assert!(left > Duration::hours(23) && left <= Duration::hours(24), "{left}");
    assert!(!said.contains(secret), "the token was shown: {said}");
}

#[test]
fn a_cluster_that_refuses_or_is_another_one_leaves_no_seed() {
    let (scratch, secrets) = folder(Duration::ZERO);
    let (address, asked) = api(&secrets.ca, "403 Forbidden");
    let (output, said) = render(&scratch, &["--server", &format!("https://{address}")]);
    asked.join().unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("makes no bootstrap token") && said.contains("not today"), "{said}");

    let (other, _) = api(&secrets.etcd_ca, "201 Created");
    let (output, said) = render(&scratch, &["--server", &format!("https://{other}")]);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("does not belong to this cluster"), "{said}");
    assert!(!scratch.path("seeds").exists());
}

#[test]
fn where_nobody_answers_a_good_token_of_the_secrets_is_taken_aloud_and_an_expired_one_never() {
    let (scratch, secrets) = folder(Duration::hours(1));
    let (output, said) = render(&scratch, &[]);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("the cluster does not answer at localhost:9"), "{said}");
    assert!(said.contains("the seed of w9 has the token of the secrets, good until"), "{said}");
    assert_eq!(role(&scratch).kubernetes().unwrap().token, secrets.token);

    let (scratch, _) = folder(Duration::hours(25));
    let (output, said) = render(&scratch, &[]);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("the bootstrap token of the secrets expired at"), "{said}");
    assert!(said.contains("--server") && said.contains("`kindling new --renew`"), "{said}");
    assert!(!scratch.path("seeds").exists());
}
