//! `kindling report`.

use std::path::{Path, PathBuf};

use super::{Align, Document, Shape, page, read, svg};
use crate::host::linux::write_atomic;
use crate::status::exit;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Status files (`kindling status --json`), serial logs, or one earlier `kindling report --json`
    files: Vec<PathBuf>,
    /// The state folder that `up` was given; without files default .kindling/CLUSTER
    #[arg(long)]
    state: Option<PathBuf>,
    #[arg(long, default_value = "cluster.toml")]
    cluster: PathBuf,
    /// What to write: NAME.html, or NAME.svg; may be given twice
    #[arg(long)]
    out: Vec<PathBuf>,
    /// Print the collected records; draws only what --out names
    #[arg(long)]
    json: bool,
    /// What the nodes have in common: their clocks, or the moment of their boot
    #[arg(long, default_value = "clock", value_parser = ["clock", "boot"])]
    align: String,
}

pub fn report(options: &Options) -> u8 {
    let state = match (&options.state, options.files.is_empty()) {
        (Some(state), _) => Some(state.clone()),
        (None, false) => None,
        (None, true) => match crate::up::state_folder(None, &options.cluster) {
            Ok(state) => Some(state),
            Err(error) => {
                eprintln!("kindling: {error}");
                return error.exit_code();
            }
        },
    };
    let how = if options.align == "boot" { Align::Boot } else { Align::Clock };
    let document = match read(&options.files, state.as_deref(), how) {
        Ok(document) => document,
        Err(error) => {
            eprintln!("kindling: {error}");
            return exit::CONFIG;
        }
    };
    if options.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&document).expect("a document has only types that JSON knows")
        );
    }
    let mut out = options.out.clone();
    if out.is_empty() && !options.json {
        out.push("report.html".into());
    }
    for path in &out {
        if let Err(error) = write(&document, path) {
            eprintln!("kindling: cannot write {}: {error}", path.display());
            return exit::FAILED;
        }
        if !options.json {
            println!("wrote {}", path.display());
        }
    }
    if !options.json {
        println!("{}", document.headline());
    }
    exit::DONE
}

fn write(document: &Document, path: &Path) -> std::io::Result<()> {
    let picture = path.extension().is_some_and(|e| e == "svg");
    let text = if picture { svg(document, Shape::Wide) } else { page(document) };
    write_atomic(path, text.as_bytes(), 0o644)
}
