//! A control plane that came later, and one that left: the real haproxy, nginx and watcher, in network namespaces,
//! learn of them without a restart, while a client connects every 20 ms. Outcomes are asserted, never times.

#[path = "../../tests/netns/traffic.rs"]
#[allow(dead_code, reason = "several tests share it")]
mod traffic;
#[path = "../../tests/netns/world.rs"]
#[allow(dead_code, reason = "several tests share it")]
mod world;

use kindling::cluster::Cluster;
use kindling::input::Source;
use traffic::Traffic;
use world::{BALANCED, Certificate, World};

const LATER: &str = "api3 = { role = \"control-plane\", address = \"10.77.0.13/24\" }\n";

/// Two load balancers that were rendered before `api3` was in the cluster file.
fn grown(proxy: &str) -> World {
    let grown = BALANCED.replace("by = ", &format!("proxy = \"{proxy}\"\nby = "));
    let before = grown.replace(LATER, "");
    assert_ne!(before, grown, "the later one is in the cluster file");
    let mut world = World::with_servers(&before, &["api1", "api2"]);
    for name in ["lb1", "lb2"] {
        let spec = world.plug_node(name);
        world.start(&spec);
    }
    name_them(&mut world, &["api1", "api2"], "list api1=10.77.0.11 api2=10.77.0.12");
    world.cluster = Cluster::parse(Source::new("cluster.toml", grown)).unwrap().0;
    world.wait_for("one holds the VIP", || world.holders().len() == 1);
    world.wait_for_answers(&["api1", "api2"], "at the start");
    world
}

/// What these API servers answer those who ask for the cluster's control planes.
fn name_them(world: &mut World, servers: &[&str], line: &str) {
    for server in servers {
        world.tell(&format!("{server}-api"), line);
    }
}

/// haproxy's own word about a server on one load balancer.
fn is_up(world: &World, balancer: &str, server: &str) -> bool {
    let login = format!("kindling:{}", world.secrets.stats_password.expose());
    let url = format!("http://{}:8888/metrics", world.cluster.node(balancer).unwrap().address.ip());
    let shown = world.curl(["--user", &login, &url]);
    let line =
        format!("haproxy_server_status{{proxy=\"control-planes\",server=\"{server}\",state=\"UP\"}} 1");
    shown.lines().any(|l| l == line)
}

#[test]
fn haproxy_learns_of_a_later_api_server_without_a_restart_and_of_one_that_left() {
    if world::possible().is_none() {
        return;
    }
    let mut world = grown("haproxy");
    let pids = ["lb1", "lb2"].map(|lb| world.pids(lb, "haproxy"));
    assert!(pids.iter().all(|of| !of.is_empty()), "{pids:?}");
    let traffic = Traffic::start(&world, "client");
    let spec = world.plug_node("api3");
    world.serve(&spec, Certificate::Own);
    let all = ["api1", "api2", "api3"];
    name_them(&mut world, &all, "list api1=10.77.0.11 api2=10.77.0.12 api3=10.77.0.13");
    for balancer in ["lb1", "lb2"] {
        world.wait_for(&format!("{balancer} has api3, and it is up"), || is_up(&world, balancer, "api3"));
    }
    world.wait_for_answers(&all, "api3 came");
    let seen = traffic.end();
    eprintln!("{} of {} requests failed", seen.failed, seen.asked);
    assert_eq!(seen.failed, 0, "of {}", seen.asked);
    assert_eq!(["lb1", "lb2"].map(|lb| world.pids(lb, "haproxy")), pids, "haproxy was restarted");

    // It lives, and is led to no more; an impostor under a later name never is.
    name_them(&mut world, &all, "list api2=10.77.0.12 api3=10.77.0.13 api9=10.77.0.11");
    world.wait_for_answers(&["api2", "api3"], "api1 left");

    // What was heard outlives the watcher and haproxy, when nobody names anything any more.
    name_them(&mut world, &all, "list");
    for verb in ["kill", "start"] {
        for daemon in ["endpoint", "haproxy"] {
            for balancer in ["lb1", "lb2"] {
                world.tell(balancer, &format!("{verb} {daemon}"));
            }
        }
    }
    world.wait_for_answers(&["api2", "api3"], "after a restart of both");
}

#[test]
fn nginx_learns_of_a_later_api_server_by_a_graceful_reload() {
    if world::possible().is_none() {
        return;
    }
    let mut world = grown("nginx");
    let masters = ["lb1", "lb2"].map(|lb| world.first_process(lb, "nginx"));
    assert!(masters.iter().all(Option::is_some), "{masters:?}");
    let traffic = Traffic::start(&world, "client");
    let spec = world.plug_node("api3");
    world.serve(&spec, Certificate::Own);
    let all = ["api1", "api2", "api3"];
    name_them(&mut world, &all, "list api1=10.77.0.11 api2=10.77.0.12 api3=10.77.0.13");
    world.wait_for_answers(&all, "api3 came");
    let seen = traffic.end();
    eprintln!("{} of {} requests failed", seen.failed, seen.asked);
    assert_eq!(seen.failed, 0, "of {}", seen.asked);
    assert_eq!(["lb1", "lb2"].map(|lb| world.first_process(lb, "nginx")), masters, "nginx was restarted");
}
