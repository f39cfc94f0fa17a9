//! What is told of the files and of the command line: all of it comes from the types that read the files and from the
//! parser itself, so that it cannot differ from what they do. The commands print, and return the exit code.

mod explain;
mod keys;
mod markdown;
pub mod schema;
pub mod shell;

use serde_json::Value;

use crate::status::exit;
pub use keys::{Key, Meaning, keys};

/// The name of the schema that `kindling new` writes beside cluster.toml.
pub const SCHEMA_FILE: &str = "cluster.schema.json";

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).expect("help has only types that JSON knows")
}

/// `kindling schema`.
pub fn print_schema(of: &str) -> u8 {
    println!("{}", pretty(&if of == "role" { schema::role() } else { schema::cluster() }));
    exit::DONE
}

/// The text of [`SCHEMA_FILE`].
pub fn schema_text() -> String {
    let schema: Value = schema::cluster();
    format!("{}\n", pretty(&schema))
}

/// The text of docs/cluster-file.md.
pub fn reference() -> String {
    markdown::reference(&keys())
}

/// `kindling explain`.
pub fn explain(name: Option<&str>, json: bool, markdown: bool) -> u8 {
    if markdown {
        print!("{}", reference());
        return exit::DONE;
    }
    let all = keys();
    let chosen: Vec<&Key> = match name {
        None => all.iter().collect(),
        Some(name) => match explain::find(&all, name) {
            Ok(keys) => keys,
            Err(error) => {
                eprintln!("kindling: {error}");
                return exit::CONFIG;
            }
        },
    };
    match (json, name) {
        (true, _) => println!("{}", pretty(&chosen)),
        (false, None) => print!("{}", explain::list(&chosen)),
        (false, Some(_)) => print!("{}", explain::text(&all, &chosen)),
    }
    exit::DONE
}
