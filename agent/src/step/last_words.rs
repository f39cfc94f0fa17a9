//! What a component said before it ended. Whoever waits for it knows only that it does not answer.

use std::path::Path;

use crate::host::{Command, Host, read_text};

/// Where the kubelet has the runtime write what containers print: NAMESPACE_POD_UID/CONTAINER/ATTEMPT.log, with an attempt
/// for each start of the container.
const LOGS: &str = "/var/log/pods";
/// In the order in which one is another's reason.
const COMPONENTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
/// A line of a log may be a whole object of the API.
const MOST_CHARACTERS: usize = 400;

/// For an error's text: the end of a unit's journal. Empty if it cannot be read.
pub fn of_unit(host: &dyn Host, unit: &str) -> String {
    let journal = host.run(&Command::query("journalctl", ["-b", "-o", "cat", "-n", "5", "-u", unit]));
    journal.map(|o| format!("\n{}", o.stdout.trim())).unwrap_or_default()
}

/// For an error's text: the first component that was started anew, and its last error before that. Empty if none was.
pub fn of_control_plane(host: &dyn Host) -> String {
    let said = |component| {
        last_error(host, component).map(|line| format!("; {component} ended, and said last: {line}"))
    };
    COMPONENTS.into_iter().find_map(said).unwrap_or_default()
}

fn last_error(host: &dyn Host, component: &str) -> Option<String> {
    let names = |path: &Path| host.list(path).unwrap_or_default();
    // A pod that was made anew has another UID, and its folder stays for a while: the one with most starts counts.
    let pods =
        names(Path::new(LOGS)).into_iter().filter(|n| n.starts_with(&format!("kube-system_{component}-")));
    let (attempt, folder) = pods
        .map(|pod| Path::new(LOGS).join(pod).join(component))
        .filter_map(|folder| Some((names(&folder).iter().filter_map(|n| attempt(n)).max()?, folder)))
        .max()?;
    // The newest one may run. The kubelet keeps one that ended: while it waits before the next start, that is the newest.
    let log_of = |attempt: u32| read_text(host, folder.join(format!("{attempt}.log")));
    let log = log_of(attempt.checked_sub(1)?).or_else(|| log_of(attempt))?;
    let lines: Vec<String> = log.lines().map(text).filter(|line| !line.trim().is_empty()).collect();
    let line = lines.iter().rfind(|line| is_error(line)).or(lines.last())?;
    Some(line.trim().chars().take(MOST_CHARACTERS).collect())
}

fn attempt(name: &str) -> Option<u32> {
    name.strip_suffix(".log")?.parse().ok()
}

/// Without what the runtime puts around it: time, stream and tag (CRI), or an object (docker).
fn text(line: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Docker {
        log: String,
    }
    if let Ok(docker) = serde_json::from_str::<Docker>(line) {
        return docker.log;
    }
    let mut parts = line.splitn(4, ' ');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some("stdout" | "stderr"), Some("F" | "P"), Some(text)) => text.to_owned(),
        _ => line.to_owned(),
    }
}

/// klog's errors and fatal errors (E1126 16:01:02...), cobra's, zap's, and a panic.
fn is_error(line: &str) -> bool {
    let klog = line.starts_with(['E', 'F'])
        && line.get(1..5).is_some_and(|date| date.bytes().all(|b| b.is_ascii_digit()));
    klog || ["Error:", "error:", "panic:", "fatal error:"].iter().any(|word| line.starts_with(word))
        || ["\"level\":\"fatal\"", "\"level\":\"panic\""].iter().any(|level| line.contains(level))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    fn host(logs: &[(&str, &str)]) -> Fake {
        let host = Fake::new();
        for (path, text) in logs {
            host.put(&format!("/var/log/pods/kube-system_{path}"), text);
        }
        host
    }

    #[test]
    fn a_flag_that_no_api_server_knows_is_told() {
        let said = of_control_plane(&host(&[
            (
                "etcd-cp1_1f/etcd/0.log",
                "2026-11-26T16:01:02.003Z stderr F {\"level\":\"info\",\"msg\":\"ready\"}\n",
            ),
            (
                "kube-apiserver-cp1_2a/kube-apiserver/3.log",
                "2026-11-26T16:01:02.003Z stderr F Error: unknown flag: --evnt-ttl\n2026-11-26T16:01:02.004Z stderr F Usage:\n",
            ),
        ]));
        assert_eq!(said, "; kube-apiserver ended, and said last: Error: unknown flag: --evnt-ttl");
    }

    #[test]
    fn by_docker_too_and_the_reason_comes_first() {
        let said = of_control_plane(&host(&[
            (
                "etcd-cp1_1f/etcd/0.log",
                "{\"log\":\"{\\\"level\\\":\\\"fatal\\\",\\\"msg\\\":\\\"no space\\\"}\\n\",\"stream\":\"stderr\",\"time\":\"2026\"}\n",
            ),
            ("etcd-cp1_1f/etcd/1.log", ""),
            ("kube-apiserver-cp1_2a/kube-apiserver/0.log", "x stderr F E1126 16:01:02.003 no etcd\n"),
            ("kube-apiserver-cp1_2a/kube-apiserver/1.log", ""),
        ]));
        assert_eq!(said, "; etcd ended, and said last: {\"level\":\"fatal\",\"msg\":\"no space\"}");
    }

    #[test]
    fn nothing_is_said_of_containers_that_run() {
        let log = "2026-11-26T16:01:02.003Z stderr F E1126 16:01:02.003456       1 a.go:1] not yet\n";
        assert_eq!(of_control_plane(&host(&[("kube-apiserver-cp1_2a/kube-apiserver/0.log", log)])), "");
        assert_eq!(of_control_plane(&host(&[])), "");
    }
}
