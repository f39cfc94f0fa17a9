//! A thousand workers that boot at the same moment: each runs the agent's own join step, with its real requests and
//! its real pauses, against one HTTPS server on loopback that stands for the API. Nothing on this machine is changed.
//! `tests/bench` runs it; `--help` says what can be varied.

mod api;
mod worker;

use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use kindling::cluster::{Cluster, Secrets, render};
use kindling::facts::Facts;
use kindling::input::Source;
use kindling::plan::{Action, plan};
use kindling::role::NodeSpec;
use kindling::step::Context;
use kindling::step::join::Join;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};

use api::{Api, Timeline};
use worker::Worker;

#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 1000)]
    workers: usize,
    /// Seconds from power-on until the API answers
    #[arg(long, default_value_t = 17.0)]
    silent: f64,
    /// Seconds from then on until it knows the bootstrap token
    #[arg(long, default_value_t = 5.0)]
    unknown: f64,
    /// Until the API answers, connections are taken and closed, as haproxy does, instead of refused
    #[arg(long)]
    closed: bool,
    /// Seconds from power-on after which a worker that still waits has given up
    #[arg(long, default_value_t = 120)]
    patience: u64,
}

/// What became of one worker.
struct Outcome {
    /// Seconds from power-on until it started kubeadm; `None` if it never did.
    joined: Option<f64>,
    /// Requests that it sent after the API had begun to answer: all that can have reached it.
    asked: usize,
    /// All its looks, most of them at a port where nobody listens.
    looks: usize,
}

fn main() {
    let options = Options::parse();
    assert!(options.workers > 0, "--workers is at least 1");
    more_files();
    let (spec, join, server) = cluster(options.workers, options.patience);
    let timeline = Timeline {
        answers: Duration::from_secs_f64(options.silent),
        knows: Duration::from_secs_f64(options.silent + options.unknown),
        closes: options.closed,
    };
    // Of all workers and the API.
    let power_on = Barrier::new(options.workers + 1);
    let api = Api::bind(server, timeline).expect("a port on loopback is free");
    let (address, requests) = (api.address, api.requests.clone());
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let threads: Vec<_> = (0..options.workers)
            .map(|n| {
                let (spec, join, power_on) = (&spec, &join, &power_on);
                let run = move || worker(n, spec, join, address, power_on, timeline.answers);
                let small = thread::Builder::new().stack_size(512 << 10);
                small.spawn_scoped(scope, run).expect("a thread can be started")
            })
            .collect();
        power_on.wait();
        api.serve(Instant::now());
        threads.into_iter().map(|t| t.join().expect("a worker does not panic")).collect()
    });
    let requests = requests.lock().expect("no holder panicked").clone();
    println!("{}", report(&options, &outcomes, requests));
}

/// A cluster of so many workers: what one of them knows, its join, and the API's certificate.
fn cluster(workers: usize, patience: u64) -> (NodeSpec, Join, api::Identity) {
    let mut text = format!(
        "version = 1\nname = \"simulation\"\nkubernetes = \"v1.37.2\"\npods = \"10.128.0.0/9\"\n[deadlines]\ncluster = {patience}\n\
         [endpoint]\nhost = \"kubeapi.test\"\nvip = \"10.0.0.10\"\nby = \"stacked\"\n\
         [network]\ngateway = \"10.0.0.2\"\n[nodes]\n"
    );
    for n in 1..=3 {
        text += &format!("cp{n} = {{ role = \"control-plane\", address = \"10.0.1.{n}/16\" }}\n");
    }
    for n in 0..workers {
        let (high, low) = (16 + n / 250, 1 + n % 250);
        text += &format!("w{n} = {{ role = \"worker\", address = \"10.0.{high}.{low}/16\" }}\n");
    }
    let (cluster, _) = Cluster::parse(Source::new("cluster.toml", text)).unwrap_or_else(|e| panic!("{e}"));
    let secrets = Secrets::generate(time::OffsetDateTime::now_utc()).expect("keys can be made");
    let node = cluster.node("w0").expect("there is a first worker");
    let role = render::role_file(&cluster, &secrets, node).to_toml();
    let (spec, _) = NodeSpec::parse(Source::new("role.toml", role)).unwrap_or_else(|e| panic!("{e}"));
    let steps = plan(&spec, &Facts::default());
    let join = steps.into_iter().find_map(|step| match step.action {
        Action::Join(join) => Some(*join),
        _ => None,
    });
    (spec, join.expect("a worker joins"), api::Identity::new(&secrets))
}

fn worker(
    n: usize,
    spec: &NodeSpec,
    join: &Join,
    api: SocketAddr,
    power_on: &Barrier,
    answers: Duration,
) -> Outcome {
    let spec = NodeSpec { name: format!("w{n}").parse().expect("a name"), ..spec.clone() };
    power_on.wait();
    let host = Worker::new(api, answers);
    let mut cx =
        Context { host: &host, spec: &spec, completed: false, interrupted: false, waiting: &mut |_| {} };
    if let Err(error) = join.act(&mut cx) {
        eprintln!("w{n} gave up: {error}");
    }
    host.outcome()
}

/// Each of the workers has a connection, and what its client keeps beside it.
fn more_files() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits can be read");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("a soft limit may be raised to the hard one");
}

fn report(options: &Options, outcomes: &[Outcome], mut requests: Vec<Duration>) -> String {
    requests.sort();
    let workers = outcomes.len();
    let knows = options.silent + options.unknown;
    let mut waits: Vec<f64> = outcomes.iter().filter_map(|o| o.joined).map(|at| at - knows).collect();
    waits.sort_by(f64::total_cmp);
    let tenths = |value: f64| (value * 10.0).round() / 10.0;
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("usage can be read");
    let cpu = usage.user_time() + usage.system_time();
    let cpu = cpu.tv_sec() as f64 + cpu.tv_usec() as f64 / 1e6;
    serde_json::json!({
        "workers": workers,
        "silent_seconds": options.silent,
        "silence": if options.closed { "closed" } else { "refused" },
        "unknown_seconds": options.unknown,
        "requests": requests.len(),
        "requests_per_node": (requests.len() as f64 / workers as f64 * 100.0).round() / 100.0,
        "requests_of_the_busiest_node": outcomes.iter().map(|o| o.asked).max(),
        "worst_second": worst_second(&requests),
        "looks_per_node": tenths(outcomes.iter().map(|o| o.looks as f64).sum::<f64>() / workers as f64),
        // From when the token could have been used.
        "wait_median": waits.get(waits.len() / 2).copied().map(tenths),
        "wait_worst": waits.last().copied().map(tenths),
        "gave_up": workers - waits.len(),
        "cpu_seconds": tenths(cpu),
    })
    .to_string()
}

/// The most requests that came within any one second.
fn worst_second(sorted: &[Duration]) -> usize {
    let second = Duration::from_secs(1);
    let mut first = 0;
    let mut most = 0;
    for (n, at) in sorted.iter().enumerate() {
        while *at - sorted[first] >= second {
            first += 1;
        }
        most = most.max(n + 1 - first);
    }
    most
}
