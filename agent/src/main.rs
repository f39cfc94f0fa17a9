//! The command line, and nothing else.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::{ArgValueCandidates, ArgValueCompleter};
use kindling::cluster::SecretsFile;
use kindling::cluster::hypervisor::Target;
use kindling::help::{self, shell};
use kindling::mint::Way;
use kindling::reset::Reset;
use kindling::status::exit;
use kindling::up::{self, DownOptions, Forward, Power, Switch, UpOptions, Wish};
use kindling::{agent, eprintln, operator, println};

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   failed; trying again can help (the unit does so by itself)
  2   the command line is wrong
  3   status: not finished yet
  4   status: the agent has never run on this machine
  78  a file is wrong, or the machine cannot be what it should be: change it first
  130 up: interrupted; the machines go on";

#[derive(Parser)]
#[command(name = "kindling", version, about = "One cluster file, one immutable image, all VMs on at once: an HA Kubernetes cluster.", after_help = EXIT_CODES)]
pub struct Cli {
    /// A file with the age identity that opens encrypted secrets; else KINDLING_AGE_IDENTITY names one
    #[arg(long, global = true, value_name = "FILE")]
    age_identity: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Write a commented cluster.toml and its secrets.toml (workstation)
    New {
        /// Where to write them
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Start from an example
        #[arg(long, value_parser = PossibleValuesParser::new(kindling::cluster::new::names()))]
        example: Option<String>,
        /// Only give FOLDER/secrets.toml a new bootstrap token and administrator's certificate
        #[arg(long, conflicts_with = "example")]
        renew: bool,
        /// Encrypt the secrets for this recipient, age1..., into secrets.toml.age; may be given several times
        #[arg(long, value_name = "AGE1", conflicts_with = "renew")]
        age_recipient: Vec<String>,
        /// As --age-recipient, for each line of a file
        #[arg(long, value_name = "FILE", conflicts_with = "renew")]
        age_recipients_file: Vec<PathBuf>,
    },
    /// Change the secrets of a cluster (workstation)
    Secrets {
        #[command(subcommand)]
        what: SecretsCommand,
    },
    /// Make a seed for every node, and the administrator's kubeconfig (workstation)
    Render {
        #[command(flatten)]
        inputs: Inputs,
        /// Folder for the seeds; it holds secrets
        #[arg(long, default_value = "seeds")]
        out: PathBuf,
        /// Only this node's. Where the cluster is up, it makes a fresh bootstrap token for it
        #[arg(long, add = ArgValueCompleter::new(shell::nodes))]
        node: Option<String>,
        /// Also what a hypervisor wants, with a script: vsphere (guestinfo, govc), libvirt (domains, virsh)
        #[arg(long, value_parser = ["vsphere", "libvirt"])]
        target: Option<String>,
        /// Where the cluster that is up answers, https://HOST:PORT; default: at its endpoint
        #[arg(long, value_name = "URL", requires = "node", conflicts_with = "kubeconfig")]
        server: Option<String>,
        /// As --server, with the server of this kubeconfig
        #[arg(long, value_name = "FILE", requires = "node")]
        kubeconfig: Option<PathBuf>,
    },
    /// Tell everything that is wrong with cluster files or role files
    Check {
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Also check this secrets file, against the cluster file
        #[arg(long)]
        secrets: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// Print each step and each file that a node would get; changes nothing
    Plan {
        /// A role file; without it and without --cluster this machine's own
        role_file: Option<PathBuf>,
        /// Plan a node of this cluster file, on a machine that has what it needs
        #[arg(long, requires = "node", conflicts_with = "role_file")]
        cluster: Option<PathBuf>,
        #[arg(long, default_value = "secrets.toml")]
        secrets: PathBuf,
        #[arg(long, add = ArgValueCompleter::new(shell::nodes))]
        node: Option<String>,
        /// Leave the files' contents out
        #[arg(long)]
        short: bool,
    },
    /// Run the rendered cluster on this machine, all nodes at the same moment; emulated ones in turn
    Up {
        #[command(flatten)]
        up: UpFlags,
    },
    /// Cut or give the power of single machines that `up` made
    Power {
        /// on, off, or new-disk: on, with an empty disk in the place of the one that it had
        #[arg(value_parser = ["on", "off", "new-disk"])]
        what: String,
        #[arg(required = true, add = ArgValueCompleter::new(shell::nodes))]
        nodes: Vec<String>,
        /// The state folder that `up` was given; default .kindling/CLUSTER
        #[arg(long)]
        state: Option<PathBuf>,
        #[arg(long, default_value = "cluster.toml")]
        cluster: PathBuf,
    },
    /// Stop what `up` started, and remove it
    Down {
        #[arg(long, default_value = "cluster.toml")]
        cluster: PathBuf,
        /// The state folder that `up` was given
        #[arg(long)]
        state: Option<PathBuf>,
        /// Leave disks and logs, for `up` to go on with
        #[arg(long)]
        keep: bool,
        #[arg(long)]
        json: bool,
    },
    /// Bring this machine up as its role file says (node)
    Apply {
        #[arg(default_value = agent::ROLE_FILE)]
        role_file: PathBuf,
    },
    /// Show what the agent did on this machine (node); with --cluster, how the cluster fares (workstation)
    Status {
        /// Ask the cluster: nodes, control planes, etcd, certificates, versions; and compare with this cluster file
        #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "cluster.toml", conflicts_with = "wait")]
        cluster: Option<PathBuf>,
        /// The administrator's (with --cluster)
        #[arg(long, default_value = "seeds/admin.conf", requires = "cluster")]
        kubeconfig: PathBuf,
        #[arg(long)]
        json: bool,
        /// Wait until it is done or waiting cannot help, at most this many seconds
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1800")]
        wait: Option<u64>,
    },
    /// Draw the formation of a cluster from its nodes' records, as one picture
    Report(kindling::formation::Options),
    /// Show when each certificate of this machine ends and who renews it; or renew them (node)
    Certs(kindling::certs::Options),
    /// Take this machine out of its cluster, and off what Kindling made of it (node)
    Reset {
        /// Do it; without this it is only told what would be done
        #[arg(long)]
        yes: bool,
        /// Only this machine: asks nobody in the cluster
        #[arg(long)]
        force: bool,
        /// An administrator's kubeconfig, to drain and remove a worker's Node
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
        #[arg(default_value = agent::ROLE_FILE)]
        role_file: PathBuf,
    },
    /// Tell what a key of cluster.toml means; without a key, list them all
    Explain {
        /// As in endpoint.by, nodes.*.labels, or just vip
        #[arg(add = ArgValueCandidates::new(shell::keys))]
        key: Option<String>,
        #[arg(long)]
        json: bool,
        /// The whole reference as a Markdown document
        #[arg(long, conflicts_with_all = ["key", "json"])]
        markdown: bool,
    },
    /// Print the JSON Schema of cluster.toml or of role files, for editors
    Schema {
        #[arg(value_parser = ["cluster", "role"])]
        of: String,
    },
    /// Print a script that completes commands, options and the names of nodes
    Completions {
        #[arg(value_parser = shell::SHELLS)]
        shell: String,
    },
    /// Write manual pages
    Man {
        /// Where to write them
        folder: PathBuf,
    },
    /// Import image archives in the background (run by the agent)
    #[command(hide = true)]
    ImportImages,
    /// Tell keepalived whether this machine should hold the VIP (run by kindling-endpoint.service)
    #[command(hide = true)]
    WatchEndpoint,
    /// Lead a port of loopback into the cluster's network (run by `up`)
    #[command(hide = true)]
    Forward {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        netns: PathBuf,
    },
    /// The Ethernet switch between QEMU's machines (run by `up`)
    #[command(hide = true)]
    Switch {
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        machines: usize,
    },
}

#[derive(Subcommand)]
pub enum SecretsCommand {
    /// New bootstrap token, administrator's certificate and passwords; the CAs stay, and so does the cluster.
    /// Only what ends by itself: `kindling new --renew`
    Rotate {
        #[arg(long, default_value = "secrets.toml")]
        secrets: PathBuf,
    },
}

// Not `Up`: clap names a group of arguments by each of the two, and they must differ.
#[derive(clap::Args)]
pub struct UpFlags {
    #[arg(long, default_value = "cluster.toml")]
    cluster: PathBuf,
    /// The folder that `kindling render` wrote
    #[arg(long, default_value = "seeds")]
    seeds: PathBuf,
    /// The folder that the image was baked into
    #[arg(long, default_value = "build/image/ubuntu")]
    image: PathBuf,
    /// qemu; machines: systemd-nspawn in namespaces, as root; auto: what is there already, else qemu where KVM can be
    /// used and machines where not
    #[arg(long, value_enum, default_value = "auto", hide_possible_values = true)]
    driver: Wish,
    /// Only print which driver it would be
    #[arg(long)]
    which_driver: bool,
    /// Where disks, logs and the kubeconfig lie; default .kindling/CLUSTER
    #[arg(long)]
    state: Option<PathBuf>,
    /// Virtual CPUs of each machine (qemu)
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Memory of each machine in MiB (qemu); default 2048, and emulated 4096 for a control plane, 3072 for a worker,
    /// less where the host has less
    #[arg(long)]
    memory: Option<u32>,
    /// Memory of machines that are no control plane, in MiB (qemu)
    #[arg(long)]
    worker_memory: Option<u32>,
    /// Size of each disk in GiB (qemu)
    #[arg(long, default_value_t = 20)]
    disk: u32,
    /// Port on 127.0.0.1 that leads to the API; default: a free one
    #[arg(long)]
    port: Option<u16>,
    /// Seconds to wait for the cluster; default 900 for machines, 1800 for qemu, as often as machines come in turn
    #[arg(long)]
    timeout: Option<u64>,
    /// Remove what is there and begin anew
    #[arg(long, conflicts_with = "power_cycle")]
    restart: bool,
    /// Cut the power of all machines and start them again on the same disks
    #[arg(long)]
    power_cycle: bool,
    /// Make machines and network, and power on nobody: `kindling power on` does
    #[arg(long, conflicts_with = "power_cycle")]
    prepare: bool,
    /// Power on emulated machines all at the same moment too, also where they outnumber the processors
    #[arg(long)]
    at_once: bool,
    #[arg(long)]
    json: bool,
}

impl UpFlags {
    fn options(&self) -> UpOptions {
        UpOptions {
            driver: self.driver,
            state: self.state.clone(),
            cpus: self.cpus,
            memory_mb: self.memory,
            worker_memory_mb: self.worker_memory,
            disk_gb: self.disk,
            port: self.port,
            timeout: self.timeout.map(Duration::from_secs),
            restart: self.restart,
            power_cycle: self.power_cycle,
            only_prepare: self.prepare,
            at_once: self.at_once,
            ..UpOptions::new(self.cluster.clone(), self.seeds.clone(), self.image.clone())
        }
    }
}

#[derive(clap::Args)]
pub struct Inputs {
    #[arg(long, default_value = "cluster.toml")]
    cluster: PathBuf,
    #[arg(long, default_value = "secrets.toml")]
    secrets: PathBuf,
}

fn main() -> ExitCode {
    shell::complete(Cli::command);
    let code = run();
    match kindling::output::finish() {
        Some(error) if code == exit::DONE => {
            eprintln!("kindling: standard output was not written: {error}");
            ExitCode::from(exit::FAILED)
        }
        _ => ExitCode::from(code),
    }
}

fn run() -> u8 {
    let Cli { age_identity, command } = Cli::parse();
    let secrets_file = |path: &Path| SecretsFile::new(path, age_identity.clone());
    match command {
        Command::New { folder, renew: true, .. } => {
            operator::renew(&secrets_file(&folder.join("secrets.toml")))
        }
        Command::New { folder, example, age_recipient, age_recipients_file, .. } => {
            operator::new(&folder, example.as_deref(), &age_recipient, &age_recipients_file)
        }
        Command::Secrets { what: SecretsCommand::Rotate { secrets } } => {
            operator::rotate(&secrets_file(&secrets))
        }
        Command::Render { inputs, out, node, target, server, kubeconfig } => {
            let target = target.map(|t| if t == "libvirt" { Target::Libvirt } else { Target::Vsphere });
            let way = server.map(Way::Server).or(kubeconfig.map(Way::Kubeconfig)).unwrap_or_default();
            operator::render(
                &inputs.cluster,
                &secrets_file(&inputs.secrets),
                &out,
                node.as_deref(),
                target,
                &way,
            )
        }
        Command::Check { files, secrets, json } => {
            operator::check(&files, secrets.as_deref().map(secrets_file).as_ref(), json)
        }
        Command::Plan { cluster: Some(cluster), secrets, node: Some(node), short, .. } => {
            operator::plan_node(&cluster, &secrets_file(&secrets), &node, short)
        }
        Command::Plan { role_file, short, .. } => {
            agent::plan_here(role_file.as_deref().unwrap_or(Path::new(agent::ROLE_FILE)), short)
        }
        Command::Apply { role_file } => agent::run(&role_file),
        Command::Reset { yes, force, kubeconfig, role_file } => {
            agent::reset(&Reset { force, kubeconfig, role_file }, yes)
        }
        Command::Certs(options) => kindling::certs::run(&options),
        Command::Report(options) => kindling::formation::report(&options),
        Command::Status { cluster: Some(cluster), kubeconfig, json, .. } => {
            kindling::survey::run(&cluster, &kubeconfig, json)
        }
        Command::Status { json, wait, .. } => agent::status(json, wait),
        Command::Up { up: options } if options.which_driver => {
            show(up::which_driver(&options.options()), options.json, |_| exit::DONE)
        }
        Command::Up { up: options } if options.prepare => {
            show(up::up(&options.options()).map(|_| "prepared: nobody is powered on"), false, |_| exit::DONE)
        }
        Command::Up { up: options } => {
            show(up::up(&options.options()), options.json, |outcome| outcome.exit_code())
        }
        Command::Power { what, nodes, state, cluster } => {
            let power = match what.as_str() {
                "on" => Power::On,
                "off" => Power::Off,
                _ => Power::OnWithNewDisk,
            };
            let done = up::state_folder(state, &cluster).and_then(|state| up::power(&state, &nodes, power));
            show(done.map(|()| format!("{what}: {}", nodes.join(", "))), false, |_| exit::DONE)
        }
        Command::Down { cluster, state, keep, json } => {
            show(up::down(&DownOptions { cluster, state, keep }), json, |_| exit::DONE)
        }
        Command::Explain { key, json, markdown } => help::explain(key.as_deref(), json, markdown),
        Command::Schema { of } => help::print_schema(&of),
        Command::Completions { shell } => shell::completions(&shell),
        Command::Man { folder } => shell::man(Cli::command(), &folder),
        Command::Forward { listen, to, netns } => serve((Forward { listen, to, netns }).run()),
        Command::Switch { folder, machines } => serve((Switch { folder, machines }).run()),
        Command::WatchEndpoint => {
            let _lines = kindling::report::Lines::new();
            serve(kindling::endpoint::run(Path::new(kindling::plan::CA_FILE)))
        }
        Command::ImportImages => {
            match kindling::step::images::import(&kindling::host::linux::Linux::default()) {
                Ok(names) => {
                    println!("imported: {}", names.join(", "));
                    exit::DONE
                }
                Err(error) => {
                    eprintln!("kindling: {error}\n  remedy: {}", error.remedy);
                    exit::FAILED
                }
            }
        }
    }
}

/// Prints what came of it, for people or for machines.
fn show<T: serde::Serialize + std::fmt::Display>(
    result: Result<T, up::UpError>,
    json: bool,
    code: impl Fn(&T) -> u8,
) -> u8 {
    match result {
        Ok(value) => {
            if json {
                println!(
                    "{}",
                    serde_json::to_string_pretty(&value).expect("outcomes have only types that JSON knows")
                );
            } else {
                println!("{value}");
            }
            code(&value)
        }
        Err(error) => {
            eprintln!("kindling: {error}");
            error.exit_code()
        }
    }
}

/// The end of a program that serves until it is killed.
fn serve(result: std::io::Result<()>) -> u8 {
    match result {
        Ok(()) => exit::DONE,
        Err(error) => {
            eprintln!("kindling: {error}");
            exit::FAILED
        }
    }
}
