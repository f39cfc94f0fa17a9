//! `kindling certs` and `kindling certs renew`.

use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use super::list::{Entry, Renewer, entries};
use super::renew::Renewal;
use crate::agent::{ROLE_FILE, lock};
use crate::emulated;
use crate::host::date;
use crate::host::linux::Linux;
use crate::role::NodeSpec;
use crate::status::exit;
use crate::up::table;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[group(id = "certs-options")]
pub struct Options {
    #[command(subcommand)]
    what: Option<What>,
    /// Exit with 1 where a certificate has fewer days left
    #[arg(long, default_value_t = 30)]
    days: i64,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Renew those that are near their end, and restart what uses them (run by kindling-certs.timer)
    Renew {
        /// Renew when less than this part of a life is left, in percent
        #[arg(long, default_value_t = 33, value_parser = clap::value_parser!(u8).range(1..=99))]
        left: u8,
        /// Renew in any case
        #[arg(long)]
        now: bool,
        #[arg(default_value = ROLE_FILE)]
        role_file: PathBuf,
    },
}

pub fn run(options: &Options) -> u8 {
    match &options.what {
        Some(What::Renew { left, now, role_file }) => renew(role_file, *left, *now),
        None => show(options.days, options.json),
    }
}

fn show(threshold: i64, json: bool) -> u8 {
    let host = Linux::default();
    let now = date(&host);
    let list = entries(&host);
    if json {
        println!("{}", serde_json::to_string_pretty(&list).expect("entries have only types that JSON knows"));
    } else if list.is_empty() {
        println!("no certificate is on this machine yet");
    } else {
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        let mut rows = vec![row(["CERTIFICATE", "ENDS", "DAYS", "RENEWED BY"])];
        rows.extend(list.iter().map(|e| {
            let ends = e.ends.map_or("not a certificate".to_owned(), |e| e.date().to_string());
            let days = days(e, now).map_or("-".to_owned(), |d| d.to_string());
            row([e.path, &ends, &days, e.renewed_by.how()])
        }));
        print!("{}", table(rows, 9));
    }
    let soon = |e: &&Entry| days(e, now).is_none_or(|d| d < threshold);
    let list: Vec<&Entry> = list.iter().filter(|e| e.renewed_by != Renewer::Nobody).filter(soon).collect();
    for entry in &list {
        match days(entry, now) {
            Some(days) => eprintln!("kindling: {} ends in {days} days", entry.path),
            None => eprintln!("kindling: {} is not a certificate", entry.path),
        }
    }
    if list.is_empty() {
        return exit::DONE;
    }
    eprintln!(
        "  remedy: `journalctl -u kindling-certs` says why it was not renewed; `kindling certs renew` does it now"
    );
    exit::FAILED
}

fn days(entry: &Entry, now: OffsetDateTime) -> Option<i64> {
    Some((entry.ends? - now).whole_days())
}

fn renew(role_file: &Path, left: u8, now: bool) -> u8 {
    let host = Linux::default();
    let spec = match NodeSpec::load_here(role_file, &host) {
        Ok((spec, _)) => emulated::suit(spec, emulated::here()),
        Err(report) => {
            eprintln!("{report}");
            return exit::CONFIG;
        }
    };
    // The agent brings up what this would restart.
    let held = "`kindling apply` runs on this machine\n  remedy: try again when it is done: `kindling status --wait`";
    let Some(_lock) = lock(held) else { return exit::FAILED };
    let renewal = Renewal { host: &host, spec: &spec, left, now };
    match renewal.run(&mut |line| println!("waiting: {line}")) {
        Ok(done) => {
            println!("{done}");
            exit::DONE
        }
        Err(error) => {
            eprintln!("kindling: {error}\n  remedy: {}", error.remedy);
            if error.retry { exit::FAILED } else { exit::CONFIG }
        }
    }
}
