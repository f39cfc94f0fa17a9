//! The figures of the VIP, beside the lecture's configuration and kubeadm's documented one, under the same
//! client and the same faults. `make bench` runs it (tests/bench.d/vip.py): TRIALS times each, with the
//! result as JSON in the file that OUT names.

#[path = "../../tests/netns/traffic.rs"]
mod traffic;
#[path = "../../tests/netns/world.rs"]
#[allow(dead_code, reason = "several tests share it")]
mod world;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use traffic::Traffic;
use world::{BALANCED, Certificate, Files, World};

/// No longer is waited for the end of what a fault does.
const PATIENCE: Duration = Duration::from_secs(20);
/// Without a failed request, this is the end of it.
const CALM: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Kindling,
    Lecture,
    Kubeadm,
}

const WAYS: [(Way, &str); 3] =
    [(Way::Kindling, "kindling"), (Way::Lecture, "lecture"), (Way::Kubeadm, "kubeadm")];

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    NodeDeath,
    HaproxyDeath,
    HaproxyFreeze,
    ApiDeath,
    ApiHang,
    Pause,
}

const FAULTS: [(Fault, &str); 6] = [
    (Fault::NodeDeath, "node death"),
    (Fault::HaproxyDeath, "haproxy death"),
    (Fault::HaproxyFreeze, "haproxy freeze"),
    (Fault::ApiDeath, "API death"),
    (Fault::ApiHang, "API hang"),
    (Fault::Pause, "1 s pause"),
];

impl Way {
    fn files(self, number: usize) -> Files {
        macro_rules! rival {
            ($name:literal) => {{
                let keepalived = [
                    include_str!(concat!("../../tests/bench.d/vip/", $name, "/keepalived-1.conf")),
                    include_str!(concat!("../../tests/bench.d/vip/", $name, "/keepalived-2.conf")),
                ];
                vec![
                    ("keepalived/keepalived.conf", keepalived[number].to_owned()),
                    (
                        "haproxy/haproxy.cfg",
                        include_str!(concat!("../../tests/bench.d/vip/", $name, "/haproxy.cfg")).to_owned(),
                    ),
                ]
            }};
        }
        match self {
            Self::Kindling => Files::new(),
            Self::Lecture => rival!("lecture"),
            Self::Kubeadm => rival!("kubeadm"),
        }
    }

    fn world(self) -> World {
        let mut world = World::with_servers(BALANCED, &["api1", "api2", "api3"]);
        for (number, name) in ["lb1", "lb2"].into_iter().enumerate() {
            let spec = world.plug_node(name);
            match self {
                Self::Kindling => world.start(&spec),
                _ => world.boot(name, &self.files(number), &["haproxy", "keepalived"]),
            }
        }
        world
    }
}

/// The holder of the VIP and the other, when one machine has held it for a while and all API servers answer.
fn settled(world: &World) -> (&'static str, &'static str) {
    let mut since = Instant::now();
    let mut holders = Vec::new();
    world.wait_for("calm", || {
        let now = world.holders();
        let calm = now.len() == 1 && now == holders;
        if !calm {
            (since, holders) = (Instant::now(), now);
        }
        // The rivals take the VIP back, after more than three seconds.
        since.elapsed() > Duration::from_secs(5)
    });
    // The lecture's haproxy takes nine seconds to believe in a server again. One that still holds a connection
    // of before is asked last by ours, so nobody waits for it for ever.
    let since = Instant::now();
    world.wait_for("all answer", || {
        let names: BTreeSet<_> = (0..9).filter_map(|_| world.ask("client").ok()).collect();
        names.len() == 3 || (!names.is_empty() && since.elapsed() > Duration::from_secs(12))
    });
    if world.holders() == ["lb1"] { ("lb1", "lb2") } else { ("lb2", "lb1") }
}

fn trial(world: &mut World, fault: Fault) -> Value {
    let (holder, other) = settled(world);
    let claims = (world.claims(holder), world.claims(other));
    let traffic = Traffic::start(world, "client");
    std::thread::sleep(Duration::from_millis(700));
    let begin = Instant::now();
    match fault {
        Fault::NodeDeath => world.cable(holder, "down"),
        Fault::HaproxyDeath => world.tell(holder, "kill haproxy"),
        Fault::HaproxyFreeze => world.tell(holder, "freeze haproxy"),
        Fault::ApiDeath => world.kill("api1-api"),
        Fault::ApiHang => world.signal("api1-api", Signal::SIGSTOP),
        Fault::Pause => {
            world.tell(holder, "freeze all");
            std::thread::sleep(Duration::from_secs(1));
            world.tell(holder, "thaw all");
        }
    }
    let mut calm = false;
    while !calm && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(100));
        calm = begin.elapsed() > CALM + Duration::from_secs(1) && traffic.calm_for(CALM);
    }
    let (there, back) = (world.claims(other) - claims.1, world.claims(holder) - claims.0);
    let seen = traffic.end();
    match fault {
        Fault::NodeDeath => world.cable(holder, "up"),
        Fault::HaproxyDeath => world.tell(holder, "start haproxy"),
        Fault::HaproxyFreeze => world.tell(holder, "thaw haproxy"),
        Fault::ApiDeath => {
            let spec = world.spec("api1");
            world.serve(&spec, Certificate::Own);
        }
        Fault::ApiHang => world.signal("api1-api", Signal::SIGCONT),
        Fault::Pause => {}
    }
    json!({
        "silence_s": (seen.silence.as_secs_f64() * 1000.0).round() / 1000.0,
        "failed": seen.failed, "asked": seen.asked, "there": there, "back": back, "ended": calm,
    })
}

#[test]
#[ignore = "takes long: make bench"]
fn figures_of_the_vip() {
    if world::possible().is_none() {
        return;
    }
    let trials: usize = std::env::var("TRIALS").ok().map_or(20, |text| text.parse().unwrap());
    let mut results: Vec<Vec<Vec<Value>>> = vec![vec![Vec::new(); FAULTS.len()]; WAYS.len()];
    // All at the same time, so that they have the same machine.
    std::thread::scope(|scope| {
        for ((way, name), mine) in WAYS.into_iter().zip(&mut results) {
            scope.spawn(move || {
                let mut world = way.world();
                for n in 1..=trials {
                    for ((fault, what), values) in FAULTS.into_iter().zip(mine.iter_mut()) {
                        let value = trial(&mut world, fault);
                        eprintln!("{name}, {what}, trial {n} of {trials}: {value}");
                        values.push(value);
                    }
                }
            });
        }
    });
    let all: Value = WAYS
        .iter()
        .zip(results)
        .map(|((_, way), faults)| {
            let faults: Value = FAULTS
                .iter()
                .zip(faults)
                .map(|((_, fault), values)| ((*fault).to_owned(), json!(values)))
                .collect();
            ((*way).to_owned(), faults)
        })
        .collect();
    if let Some(out) = std::env::var_os("OUT") {
        std::fs::write(out, serde_json::to_string_pretty(&all).unwrap()).unwrap();
    }
}
