//! haproxy's servers at run time (<https://docs.haproxy.org/2.6/management.html>, section 9.3): one that came later is
//! added, checked as those of the configuration are, and one that left is put into maintenance. No restart, no reload.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::learn::List;
use crate::render::{API_PORT, HAPROXY_BACKEND as BACKEND, HAPROXY_SOCKET as SOCKET, haproxy_checks};

const TIMEOUT: Duration = Duration::from_secs(2);

/// A server as haproxy has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Current {
    address: Option<Ipv4Addr>,
    in_maintenance: bool,
}

/// Tells haproxy what differs. It is asked each time, so one that was restarted learns it again.
pub fn lead_to(servers: &List) -> io::Result<()> {
    let state = ask(&format!("show servers state {BACKEND}"))?;
    for commands in changes(&current(&state), servers) {
        log::info!("haproxy is told: {commands}");
        let said = ask(&commands)?;
        let unexpected = |line: &&str| !line.trim().is_empty() && !line.contains("New server registered");
        if let Some(line) = said.lines().find(unexpected) {
            return Err(io::Error::other(line.trim().to_owned()));
        }
    }
    Ok(())
}

fn ask(commands: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(SOCKET)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    writeln!(stream, "{commands}")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// The servers in the answer to `show servers state`: name, address and administrative state are its columns 4, 5 and 7.
fn current(state: &str) -> BTreeMap<String, Current> {
    /// Forced by an administrator, that is by us.
    const FORCED_MAINTENANCE: u32 = 1;
    let server = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let admin: u32 = columns.get(6)?.parse().ok()?;
        let current = Current {
            address: columns.get(4)?.parse().ok(),
            in_maintenance: admin & FORCED_MAINTENANCE != 0,
        };
        (columns.get(1) == Some(&BACKEND)).then(|| (columns[3].to_owned(), current))
    };
    state.lines().filter(|line| !line.starts_with('#')).filter_map(server).collect()
}

/// The commands that make the one the other; those of one server on one line.
fn changes(current: &BTreeMap<String, Current>, servers: &List) -> Vec<String> {
    let mut commands = Vec::new();
    for (name, address) in servers {
        let server = format!("{BACKEND}/{name}");
        match current.get(name.as_str()) {
            // Down until its checks have passed: what was named may be off.
            None => commands.push(format!(
                "add server {server} {address}:{API_PORT} {} check-sni {name} verifyhost {name}; \
                 enable health {server}; enable server {server}; set server {server} health down",
                haproxy_checks().join(" ")
            )),
            Some(known) => {
                let mut line = Vec::new();
                if known.address != Some(*address) {
                    line.push(format!("set server {server} addr {address}"));
                }
                if known.in_maintenance {
                    line.push(format!("set server {server} state ready"));
                }
                if !line.is_empty() {
                    commands.push(line.join("; "));
                }
            }
        }
    }
    for (name, known) in current {
        if !known.in_maintenance && !servers.keys().any(|server| server.as_str() == name) {
            commands.push(format!("set server {BACKEND}/{name} state maint"));
        }
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = "1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight
3 control-planes 1 api1 10.0.0.1 2 0 1 1 1 10 0 3 7 0 0 0 - 6443 - 0 0 - - 0
3 control-planes 2 api2 10.0.0.2 0 1 1 1 1 10 0 3 7 0 0 0 - 6443 - 0 0 - - 0
3 control-planes 3 api3 10.0.0.3 2 0 1 1 1 10 0 3 7 0 0 0 - 6443 - 0 0 - - 0
";

    #[test]
    fn only_what_differs_is_told() {
        let servers = |entries: &[(&str, u8)]| -> List {
            entries.iter().map(|(n, ip)| (n.parse().unwrap(), Ipv4Addr::new(10, 0, 0, *ip))).collect()
        };
        let current = current(STATE);
        assert_eq!(changes(&current, &servers(&[("api1", 1), ("api3", 3)])), Vec::<String>::new());
        let told = changes(&current, &servers(&[("api1", 9), ("api2", 2), ("api4", 4)]));
        assert_eq!(told[0], "set server control-planes/api1 addr 10.0.0.9");
        assert_eq!(told[1], "set server control-planes/api2 state ready");
        assert!(told[2].starts_with("add server control-planes/api4 10.0.0.4:6443 check check-ssl verify"));
        assert!(told[2].contains(" verifyhost api4; "), "{}", told[2]);
        assert_eq!(told[3], "set server control-planes/api3 state maint");
        assert_eq!(told.len(), 4);
    }
}
