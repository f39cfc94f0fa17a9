//! keepalived and haproxy for real, with the files that the renderers write, in network namespaces.
//! Root is needed; what cannot run says so. Outcomes are asserted, never times.

#[path = "../../tests/netns/world.rs"]
#[allow(dead_code, reason = "several tests share it")]
mod world;

use std::path::Path;

use kindling::error::StepError;
use kindling::host::linux::Linux;
use kindling::input::Source;
use kindling::role::NodeSpec;
use kindling::role::types::ProxyKind;
use kindling::step::vip::VipFree;
use kindling::step::{Context, Found};
use nix::sys::signal::Signal;
use world::{BALANCED, Certificate, World};

/// Two load balancers before five control planes, of which two are not what they say.
fn load_balanced() -> String {
    format!(
        "{BALANCED}foreign = {{ role = \"control-plane\", address = \"10.77.0.14/24\" }}\n\
         misnamed = {{ role = \"control-plane\", address = \"10.77.0.15/24\" }}\n"
    )
}

/// The control planes hold the VIP, which leads straight to their API servers.
const STACKED: &str = r#"
version = 1
name = "stacked"
kubernetes = "v1.37.2"

[endpoint]
vip = "10.77.0.10"
by = "stacked"

[network]
gateway = "10.77.0.1"

[nodes]
cp1 = { role = "control-plane", address = "10.77.0.11/24" }
cp2 = { role = "control-plane", address = "10.77.0.12/24" }
cp3 = { role = "control-plane", address = "10.77.0.13/24" }
"#;

const CLIENT: &str = "10.77.0.99/24";

fn wait_for_holder(world: &World, names: &[&str], when: &str) {
    world.wait_for(&format!("{when}: {names:?} holds the VIP"), || world.holders() == names);
}

#[test]
fn keepalived_haproxy_and_nginx_accept_every_file_that_is_rendered() {
    if world::possible().is_none() {
        return;
    }
    let world = World::new(STACKED);
    world.plug("any", "10.0.0.107/24");
    // nginx binds what it checks.
    world.sysctl("any", "net.ipv4.ip_nonlocal_bind=1");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/render");
    let mut checked = 0;
    for case in std::fs::read_dir(folder).unwrap() {
        let path = case.unwrap().path().join("role.toml");
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let spec = NodeSpec::parse(Source::new(&path, text)).unwrap_or_else(|report| panic!("{report}")).0;
        let mut commands: Vec<&[&str]> = Vec::new();
        if spec.vrrp().is_some() {
            commands.push(&["keepalived", "--config-test", "--use-file", "/etc/keepalived/keepalived.conf"]);
        }
        match spec.proxy().map(|proxy| proxy.kind) {
            Some(ProxyKind::Nginx) => commands.push(&["nginx", "-t", "-q", "-c", "/etc/nginx/nginx.conf"]),
            Some(_) => commands.push(&["haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg"]),
            None => {}
        }
        for command in commands {
            let output = world.run("any", &spec, command);
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            // There is no journal in a namespace.
            let said: String = said
                .lines()
                .filter(|line| !line.ends_with("connect() failed (2: No such file or directory)"))
                .collect();
            let what = format!("{}: {command:?}: {said}", path.display());
            assert!(output.status.success(), "{what}");
            // A remark of today is an error of tomorrow's version.
            let is_fine = said.is_empty() || said.trim() == "Configuration file is valid";
            assert!(is_fine, "{what}");
            checked += 1;
        }
    }
    assert!(checked >= 8, "only {checked} files were checked");
}

#[test]
fn load_balancers_keep_the_endpoint_alive() {
    if world::possible().is_none() {
        return;
    }
    let mut world = World::new(&load_balanced());
    world.plug("client", CLIENT);
    for name in ["api1", "api2", "api3", "foreign", "misnamed"] {
        let spec = world.plug_node(name);
        let certificate = match name {
            "foreign" => Certificate::Foreign,
            "misnamed" => Certificate::OfAnother,
            _ => Certificate::Own,
        };
        world.serve(&spec, certificate);
    }
    for name in ["lb1", "lb2"] {
        let spec = world.plug_node(name);
        world.start(&spec);
    }
    world.wait_for("at the start: one holds the VIP", || world.holders().len() == 1);
    world.wait_for_answers(&["api1", "api2", "api3"], "at the start");
    statistics_ask_for_the_password(&world);

    // The client asks once at a time, so what is lost can only be the one request that was under way.
    world.tell("api1-api", "500");
    let lost = world.wait_for_answers(&["api2", "api3"], "api1 is not ready");
    assert!(lost <= 1, "{lost} requests were lost as api1 was not ready");

    world.kill("api2-api");
    let lost = world.wait_for_answers(&["api3"], "api2 is dead");
    assert!(lost <= 1, "{lost} requests were lost as api2 died");

    world.tell("api1-api", "200");
    world.wait_for_answers(&["api1", "api3"], "api1 is ready again");

    world.signal("api3-api", Signal::SIGSTOP);
    world.wait_for_answers(&["api1"], "api3 hangs");
    world.signal("api3-api", Signal::SIGCONT);
    world.wait_for_answers(&["api1", "api3"], "api3 goes on");

    // With nobody behind it the VIP is still held, or no first control plane could ever init.
    world.kill("api1-api");
    world.kill("api3-api");
    world.wait_for("nobody is behind the VIP: no answer", || world.ask("client").is_err());
    world.wait_for("nobody is behind the VIP: one holds it", || world.holders().len() == 1);
}

fn statistics_ask_for_the_password(world: &World) {
    let login = format!("kindling:{}", world.secrets.stats_password.expose());
    let get = |url: &str, login: Option<&str>| {
        let login = login.iter().flat_map(|login| ["--user", login]);
        world.curl(["--write-out", "\n%{http_code}", url].into_iter().chain(login))
    };
    for (path, part) in [("/status", "control-planes"), ("/metrics", "haproxy_server_status{")] {
        let url = format!("http://10.77.0.3:8888{path}");
        let refused = get(&url, None);
        assert!(
            refused.ends_with("\n401") && !refused.contains(part),
            "{path} without a password: {refused}"
        );
        let shown = get(&url, Some(&login));
        assert!(shown.ends_with("\n200") && shown.contains(part), "{path} with the password: {shown}");
    }
}

#[test]
fn stacked_control_planes_hold_the_vip_where_an_api_server_is_ready() {
    if world::possible().is_none() {
        return;
    }
    let mut world = World::new(STACKED);
    world.plug("client", CLIENT);
    let cps = ["cp1", "cp2", "cp3"].map(|name| world.plug_node(name));
    for spec in &cps {
        world.start(spec);
    }
    world.wait_for("no API server runs yet: one holds the VIP", || world.holders().len() == 1);

    world.serve(&cps[1], Certificate::Own);
    wait_for_holder(&world, &["cp2"], "cp2's API server is the first");
    world.wait_for_answers(&["cp2"], "cp2's API server is the first");

    // An impostor on cp1's port does not make it healthy.
    world.serve(&cps[0], Certificate::Foreign);
    world.serve(&cps[2], Certificate::Own);
    world.tell("cp2-api", "500");
    wait_for_holder(&world, &["cp3"], "cp2 is not ready, cp1 is an impostor");
    world.wait_for_answers(&["cp3"], "cp2 is not ready, cp1 is an impostor");

    // Nobody has more to offer than who has it.
    world.kill("cp3-api");
    world.wait_for("nobody is ready: no answer", || world.ask("client").is_err());
    wait_for_holder(&world, &["cp3"], "nobody is ready: the VIP stays");
}

#[test]
fn a_single_control_plane_holds_its_vip_without_peers() {
    if world::possible().is_none() {
        return;
    }
    let single = STACKED.lines().filter(|line| !line.starts_with("cp2") && !line.starts_with("cp3"));
    let mut world = World::new(&single.collect::<Vec<_>>().join("\n"));
    world.plug("client", CLIENT);
    let spec = world.plug_node("cp1");
    world.start(&spec);
    wait_for_holder(&world, &["cp1"], "its API server does not run yet");
    world.serve(&spec, Certificate::Own);
    world.wait_for_answers(&["cp1"], "its API server runs");
}

/// What the agent finds on `lb1` before it claims the VIP; the same when it has asked ahead.
fn is_the_vip_free(world: &World) -> Result<Found, StepError> {
    let spec = world.spec("lb1");
    let vrrp = spec.vrrp().unwrap();
    let question = VipFree {
        interface: "eth0".into(),
        vip: spec.endpoint.vip.unwrap(),
        vrid: vrrp.vrid,
        peers: vrrp.peers.clone(),
    };
    let look = |host: &Linux| {
        let waiting = &mut |_: &str| ();
        question.look(&mut Context { host, spec: &spec, completed: false, interrupted: false, waiting })
    };
    world.inside("lb1", || {
        let ahead = Linux::default();
        ahead.ask_link_ahead(&question.interface, question.addresses());
        let found = look(&Linux::default());
        assert_eq!(look(&ahead), found);
        found
    })
}

#[test]
fn a_foreign_owner_of_the_vip_is_found_and_a_peer_is_not() {
    if world::possible().is_none() {
        return;
    }
    let mut world = World::new(&load_balanced());
    world.plug_node("lb1");
    assert_eq!(is_the_vip_free(&world), Ok(Found::matches()), "nobody has it");

    let peer = world.plug_node("lb2");
    world.start(&peer);
    wait_for_holder(&world, &["lb2"], "a peer holds the VIP");
    assert_eq!(is_the_vip_free(&world), Ok(Found::matches()), "a peer has it");

    world.kill("lb2");
    world.plug("foreign", "10.77.0.10/24");
    let error = is_the_vip_free(&world).unwrap_err();
    let mac = format!("10.77.0.10 is in use already: {} answers for it", world.mac("foreign"));
    assert!(error.retry && error.cause.contains(&mac), "{error}");
}

#[test]
fn a_foreign_vrrp_group_with_the_same_identifier_is_found() {
    if world::possible().is_none() {
        return;
    }
    let mut world = World::new(&load_balanced());
    let spec = world.plug_node("lb1");
    let vrid = spec.vrrp().unwrap().vrid;
    world.plug("stranger", "10.77.0.66/24");
    let speak = |world: &mut World, vrid: u8, version: u8, how: &str| {
        let text = format!(
            "global_defs {{\n vrrp_version {version}\n script_user root\n}}\n\
             vrrp_instance other {{\n state MASTER\n interface eth0\n virtual_router_id {vrid}\n\
             priority 100\n advert_int 1\n {how}\n virtual_ipaddress {{\n 10.77.0.67/32\n }}\n}}\n"
        );
        world.boot("stranger", &vec![("keepalived/keepalived.conf", text)], &["keepalived"]);
        world.wait_for("the stranger speaks", || world.claims("stranger") > 0);
    };
    for (version, how) in [(2, ""), (3, "unicast_peer {\n 10.77.0.2\n }")] {
        speak(&mut world, vrid.0, version, how);
        let error = is_the_vip_free(&world).unwrap_err();
        let says = format!("VRRP with this cluster's VRID {vrid}: 10.77.0.66 (version {version})");
        assert!(error.retry && error.cause.contains(&says), "{error}");
        world.kill("stranger");
    }
    speak(&mut world, if vrid.0 == 1 { 2 } else { 1 }, 2, "");
    assert_eq!(is_the_vip_free(&world), Ok(Found::matches()), "another identifier");
}
