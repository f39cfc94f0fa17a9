//! What a component said before it ended. Whoever waits for it knows only that it does not answer.

use std::path::Path;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::host::{Command, Host, date, read_text};

/// Where the kubelet has the runtime write what containers print: NAMESPACE_POD_UID/CONTAINER/ATTEMPT.log, with an attempt
/// for each start of the container.
const LOGS: &str = "/var/log/pods";
/// In the order in which one is another's reason.
const COMPONENTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
/// In seconds. The kubelet starts what ends again and again at least every five minutes.
const LATELY: i64 = 600;
/// A line of a log may be a whole object of the API.
const MOST_CHARACTERS: usize = 400;

/// For an error's text: the end of a unit's journal. Empty if it cannot be read.
pub fn of_unit(host: &dyn Host, unit: &str) -> String {
    let journal = host.run(&Command::query("journalctl", ["-b", "-o", "cat", "-n", "5", "-u", unit]));
    journal.map(|o| format!("\n{}", o.stdout.trim())).unwrap_or_default()
}

/// For an error's text: the first component that was started anew of late, and its last error before that. Empty if none was:
/// what ended hours ago and has run since is not the cause of anything now.
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
    let lines: Vec<(Option<OffsetDateTime>, String)> = log.lines().map(parts).collect();
    let ended = lines.last().and_then(|(at, _)| *at);
    if ended.is_some_and(|at| (date(host) - at).whole_seconds() > LATELY) {
        return None;
    }
    let lines: Vec<String> =
        lines.into_iter().map(|(_, line)| line).filter(|line| !line.trim().is_empty()).collect();
    let line = lines.iter().rfind(|line| is_error(line)).or(lines.last())?;
    Some(line.trim().chars().take(MOST_CHARACTERS).collect())
}

fn attempt(name: &str) -> Option<u32> {
    name.strip_suffix(".log")?.parse().ok()
}

/// When the runtime wrote a line, and the line without what the runtime puts around it: time, stream and tag (CRI), or an
/// object (docker).
fn parts(line: &str) -> (Option<OffsetDateTime>, String) {
    #[derive(serde::Deserialize)]
    struct Docker {
        log: String,
        #[serde(default)]
        time: String,
    }
    let date = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    if let Ok(docker) = serde_json::from_str::<Docker>(line) {
        return (date(&docker.time), docker.log);
    }
    let mut parts = line.splitn(4, ' ');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(time), Some("stdout" | "stderr"), Some("F" | "P"), Some(text)) => (date(time), text.to_owned()),
        _ => (None, line.to_owned()),
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
    use std::time::Duration;

    use super::*;
    use crate::host::fake::Fake;

    fn set_clock(host: &Fake, date: &str, later: i64) {
        let seconds = OffsetDateTime::parse(date, &Rfc3339).expect("a date").unix_timestamp() + later;
        host.wrong_clock.set(Some((u64::try_from(seconds).expect("after 1970"), Duration::MAX)));
    }

    fn host(logs: &[(&str, &str)]) -> Fake {
        let host = Fake::new();
        set_clock(&host, "2026-11-26T16:02:03Z", 0);
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
    fn what_ended_long_ago_and_runs_again_is_no_cause() {
        let (day, ended) = ("2026-11-26T16:01:02.003456789Z", "E1126 16:01:02.003 no etcd");
        let docker = format!("{{\"log\":\"{ended}\\n\",\"stream\":\"stderr\",\"time\":\"{day}\"}}\n");
        for log in [format!("{day} stderr F {ended}\n"), docker] {
            let host = host(&[
                ("kube-scheduler-cp1_2a/kube-scheduler/0.log", &log),
                ("kube-scheduler-cp1_2a/kube-scheduler/1.log", ""),
            ]);
            for (later, told) in [(0, true), (400, true), (4000, false)] {
                set_clock(&host, day, later);
                assert_eq!(!of_control_plane(&host).is_empty(), told, "{later} s later: {log}");
            }
        }
    }

    #[test]
    fn nothing_is_said_of_containers_that_run() {
        let log = "2026-11-26T16:01:02.003Z stderr F E1126 16:01:02.003456       1 a.go:1] not yet\n";
        assert_eq!(of_control_plane(&host(&[("kube-apiserver-cp1_2a/kube-apiserver/0.log", log)])), "");
        assert_eq!(of_control_plane(&host(&[])), "");
    }
}
