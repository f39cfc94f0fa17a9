//! What the agent says of a server whose certificate it does not accept: whose clock is wrong is another matter than whose
//! cluster it is.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use kindling::cluster::Pair;
use kindling::cluster::pki::{Leaf, authority};
use kindling::kube::{Credentials, Kube, KubeError, Server};
use kindling::room::server_config;
use rustls::ServerConnection;
use time::{Duration, OffsetDateTime};

const NAME: &str = "kubeapi.kindling.test";
const YEAR: Duration = Duration::days(365);

/// Shakes one hand with a certificate of `ca` that was made at `made` and lives a year.
fn server(ca: &Pair, made: OffsetDateTime) -> SocketAddr {
    let names = [NAME.to_owned(), "127.0.0.1".to_owned()];
    let leaf =
        Leaf { common_name: "kube-apiserver", organization: None, names: &names, server: true, life: YEAR };
    let config = Arc::new(server_config(ca, &leaf, made).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut connection = ServerConnection::new(config.clone()).unwrap();
            let _ = connection.complete_io(&mut stream.unwrap());
        }
    });
    address
}

fn asked(ca: &Pair, address: SocketAddr, name: Option<&str>) -> KubeError {
    let server = Server { ca: ca.certificate.clone(), address, name: name.map(str::to_owned) };
    let kube = Kube::new(server, Credentials::Anonymous, std::time::Duration::from_secs(10)).unwrap();
    kube.get("/readyz").expect_err("it has no answer")
}

#[test]
fn a_clock_that_is_years_wrong_is_no_other_cluster() {
    let now = OffsetDateTime::now_utc();
    let (ca, other) = (authority("kubernetes", now).unwrap(), authority("kubernetes", now).unwrap());
    for name in [Some(NAME), None] {
        for made in [now - 3 * YEAR, now + YEAR] {
            let error = asked(&ca, server(&ca, made), name);
            assert!(matches!(error, KubeError::Clock { .. }), "{name:?}, made {made}: {error}");
        }
        let error = asked(&ca, server(&other, now), name);
        assert!(matches!(error, KubeError::Untrusted { .. }), "{name:?}, another CA: {error}");
    }
}
