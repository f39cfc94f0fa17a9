//! nginx's servers at run time: those that came later stand in a file of their own, and a reload is graceful. It is one
//! way only: nginx asks no server how it is, and one of the role file that left is in it until the file is another.

use std::fs;
use std::io;
use std::path::Path;

use super::learn::List;
use crate::host::linux::{Linux, write_atomic};
use crate::host::{Command, Host};
use crate::render::{NGINX_SERVERS as FILE, nginx_server};

pub fn lead_to(servers: &List, given: &List, host: &Linux) -> io::Result<()> {
    let later = servers.iter().filter(|(name, ip)| given.get(*name) != Some(*ip));
    let text: String = later.map(|(name, ip)| nginx_server(name, *ip)).collect();
    let before = fs::read_to_string(FILE).unwrap_or_default();
    if text == before {
        return Ok(());
    }
    write_atomic(Path::new(FILE), text.as_bytes(), 0o644)?;
    // It checks the configuration itself, and goes on with the old one where that is wrong.
    let reloaded = host.run(&Command::new("nginx", ["-s", "reload"]));
    if let Err(error) = reloaded {
        // Told again at the next turn; one that does not run reads the file when it starts.
        write_atomic(Path::new(FILE), before.as_bytes(), 0o644)?;
        return Err(io::Error::other(error.to_string()));
    }
    log::info!("nginx leads to {}", servers.keys().map(|n| n.as_str()).collect::<Vec<_>>().join(", "));
    Ok(())
}
