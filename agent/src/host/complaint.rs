//! What a command says was wrong, out of all that it printed: its own error first, without warnings and progress.
//!
//! kubeadm prints warnings before and after its error: those of preflight (`[WARNING Swap]: ...`) and klog's
//! (`W1129 16:01:02.003456 ...`). Its error may have several lines, and up to 1.33 nothing stands before it
//! (kubernetes/cmd/kubeadm/app/util/error.go, later util/errors/errors.go and preflight/checks.go).

use super::Output;

/// What remains of an output in which no error is recognised.
const MOST_LINES: usize = 8;
/// Follows each error of kubeadm.
const END_OF_ERROR: &str = "To see the stack trace of this error execute with --v=5";
const ADVICE: &str = "[preflight] If you know what you are doing";

/// The error in what a command printed; empty if it printed nothing.
pub fn complaint(output: &Output) -> String {
    let said = |text: &str| {
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        error(&lines)
    };
    let found = said(&output.stderr).or_else(|| said(&output.stdout));
    found.unwrap_or_else(|| {
        let all = |text: &'_ str| -> Vec<String> {
            text.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(str::to_owned).collect()
        };
        let telling =
            |text: &str| -> Vec<String> { all(text).into_iter().filter(|line| !is_noise(line)).collect() };
        let (out, err) = (&output.stdout, &output.stderr);
        let errors = |text: &str| -> Vec<String> {
            all(text).into_iter().filter(|line| is_klog(line, &['E', 'F'])).collect()
        };
        let parts = [telling(err), telling(out), errors(err), errors(out), all(err), all(out)];
        let lines = parts.into_iter().find(|lines| !lines.is_empty()).unwrap_or_default();
        lines[lines.len().saturating_sub(MOST_LINES)..].join("\n")
    })
}

fn error(lines: &[&str]) -> Option<String> {
    let failed_checks = failed_checks(lines);
    let end = lines.iter().rposition(|line| line.starts_with(END_OF_ERROR));
    let before = &lines[..end.unwrap_or(lines.len())];
    let named = before.iter().position(|line| begins_error(line));
    if named.is_none() && end.is_none() {
        // A program that fell over says no more of its own.
        let panic = lines.iter().position(|line| line.starts_with("panic: "))?;
        let own = lines[panic..].iter().take_while(|line| !line.starts_with("goroutine "));
        return Some(own.copied().collect::<Vec<_>>().join("\n"));
    }
    // Without a word in front an error begins after the last line that is something else.
    let first = named.or_else(|| {
        let other = before.iter().rposition(|line| is_noise(line) || line.starts_with('['));
        end.map(|_| other.map_or(0, |n| n + 1))
    });
    let text: Vec<&str> = match first {
        Some(first) => before[first..].iter().copied().filter(|line| !is_noise(line)).collect(),
        None => Vec::new(),
    };
    let text = text.join("\n");
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    if failed_checks.is_empty() {
        return (!text.is_empty()).then(|| text.to_owned());
    }
    // Up to 1.33 the checks stand within the error, later before it.
    let head = text.lines().next().unwrap_or("error execution phase preflight");
    let head = head
        .trim_end_matches(": [preflight] Some fatal errors occurred:")
        .trim_end_matches(": preflight checks failed");
    Some(format!("{head}: {}", failed_checks.join("\n")))
}

fn begins_error(line: &str) -> bool {
    ["error: ", "error execution phase ", "Error: "].iter().any(|word| line.starts_with(word))
}

/// Each check of preflight that failed, with all lines of its reason.
fn failed_checks(lines: &[&str]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut inside = false;
    for line in lines {
        let text = line.trim_start();
        if text.starts_with("[ERROR ") {
            inside = true;
            found.push(text.to_owned());
        } else if text.starts_with('[')
            || is_noise(line)
            || begins_error(line)
            || text.starts_with(END_OF_ERROR)
        {
            inside = false;
        } else if inside && let Some(last) = found.last_mut() {
            *last += " ";
            *last += text;
        }
    }
    found
}

/// A warning or a word on the way. klog's lines of errors are such words too: kubeadm and its libraries go on after them,
/// and its own error comes without klog.
fn is_noise(line: &str) -> bool {
    let text = line.trim_start();
    is_klog(text, &['I', 'W', 'E', 'F'])
        || ["[WARNING ", "Warning: ", "WARNING: ", "Flag --", ADVICE]
            .iter()
            .any(|word| text.starts_with(word))
        || text.starts_with(END_OF_ERROR)
}

/// A line of klog's of one of these severities (`E1129 16:01:02.003456 ...`).
fn is_klog(line: &str, severities: &[char]) -> bool {
    let text = line.trim_start();
    text.starts_with(severities)
        && text.get(1..5).is_some_and(|date| date.bytes().all(|b| b.is_ascii_digit()))
        && text.get(5..6) == Some(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As kubeadm of these versions prints them.
    #[test]
    fn the_error_of_kubeadm_is_told_and_its_warnings_are_not() {
        for (what, stderr, told) in [
            (
                "1.37, a join that timed out behind three warnings",
                "W1129 16:01:02.003456    1234 initconfiguration.go:312] error unmarshaling configuration\n\
                 \t[WARNING Swap]: swap is supported for cgroup v2 only. The kubelet must be properly configured\n\
                 \t[WARNING ContainerRuntimeVersion]: You must update your container runtime to a version that supports the CRI method RuntimeConfig.\n\
                 W1129 16:06:02.003456    1234 checks.go:843] detected that the sandbox image is inconsistent\n\
                 error: error execution phase kubelet-wait-bootstrap: failed while waiting for TLS bootstrap: context deadline exceeded\n\
                 To see the stack trace of this error execute with --v=5 or higher\n",
                "error execution phase kubelet-wait-bootstrap: failed while waiting for TLS bootstrap: context deadline exceeded",
            ),
            (
                "1.33, no word in front",
                "\t[WARNING Swap]: swap is on\n\
                 error execution phase kubelet-start: a Node with name \"w1\" and status \"Ready\" already exists in the cluster. You must delete the existing Node or change the name of this new joining Node\n\
                 To see the stack trace of this error execute with --v=5 or higher\n",
                "error execution phase kubelet-start: a Node with name \"w1\" and status \"Ready\" already exists in the cluster. You must delete the existing Node or change the name of this new joining Node",
            ),
            (
                "warnings behind the error",
                "error: error execution phase control-plane-join/etcd: error creating local etcd static pod manifest file: etcdserver: unhealthy cluster\n\
                 To see the stack trace of this error execute with --v=5 or higher\n\
                 W1129 16:01:02.003456    1234 etcd.go:1] late\n",
                "error execution phase control-plane-join/etcd: error creating local etcd static pod manifest file: etcdserver: unhealthy cluster",
            ),
            (
                "several lines",
                "error: error execution phase wait-control-plane: failed while waiting for the control plane to start: [kube-apiserver check failed at https://10.0.0.11:6443/livez: Get \"https://10.0.0.11:6443/livez\": dial tcp 10.0.0.11:6443: connect: connection refused,\n\
                 \tkube-scheduler check failed at https://127.0.0.1:10259/livez: context deadline exceeded]\n\
                 To see the stack trace of this error execute with --v=5 or higher\n",
                "error execution phase wait-control-plane: failed while waiting for the control plane to start: [kube-apiserver check failed at https://10.0.0.11:6443/livez: Get \"https://10.0.0.11:6443/livez\": dial tcp 10.0.0.11:6443: connect: connection refused,\n\tkube-scheduler check failed at https://127.0.0.1:10259/livez: context deadline exceeded]",
            ),
            (
                "1.32, preflight within the error",
                "\t[WARNING Swap]: swap is on\n\
                 error execution phase preflight: [preflight] Some fatal errors occurred:\n\
                 \t[ERROR Port-6443]: Port 6443 is in use\n\
                 \t[ERROR CRI]: container runtime is not running: output: time=\"2026\" level=fatal\n\
                 , error: exit status 1\n\
                 [preflight] If you know what you are doing, you can make a check non-fatal with `--ignore-preflight-errors=...`\n\
                 To see the stack trace of this error execute with --v=5 or higher\n",
                "error execution phase preflight: [ERROR Port-6443]: Port 6443 is in use\n[ERROR CRI]: container runtime is not running: output: time=\"2026\" level=fatal , error: exit status 1",
            ),
            (
                "1.37, preflight before the error",
                "[preflight] Some fatal errors occurred:\n\
                 \t[ERROR NumCPU]: the number of available CPUs 1 is less than the required 2\n\
                 [preflight] If you know what you are doing, you can make a check non-fatal with `--ignore-preflight-errors=...`\n\
                 error: error execution phase preflight: preflight checks failed\n\
                 To see the stack trace of this error execute with --v=5 or higher\n",
                "error execution phase preflight: [ERROR NumCPU]: the number of available CPUs 1 is less than the required 2",
            ),
            (
                "1.33, before any phase",
                "W1129 16:01:02.003456    1234 common.go:1] your configuration file uses a deprecated API spec\n\
                 couldn't load the kubeconfig /etc/kindling/discovery.conf:\n\
                 yaml: line 3: mapping values are not allowed\n\
                 To see the stack trace of this error execute with --v=5 or higher\n",
                "couldn't load the kubeconfig /etc/kindling/discovery.conf:\nyaml: line 3: mapping values are not allowed",
            ),
            (
                "an error of a library on the way, and one behind it",
                "E1129 16:01:02.003456    1234 memcache.go:265] couldn't get current server API group list: dial tcp 10.0.0.10:6443: connect: connection refused\n\
                 could not bootstrap the admin user in file admin.conf\n\
                 To see the stack trace of this error execute with --v=5 or higher\n\
                 E1129 16:01:03.003456    1234 reflector.go:150] late\n",
                "could not bootstrap the admin user in file admin.conf",
            ),
            (
                "a library's error among the lines of kubeadm's own",
                "error: error execution phase wait-control-plane: failed:\n\
                 E1129 16:01:02.003456    1234 memcache.go:265] couldn't get current server API group list\n\
                 kube-apiserver check failed\n\
                 To see the stack trace of this error execute with --v=5 or higher\n",
                "error execution phase wait-control-plane: failed:\nkube-apiserver check failed",
            ),
            (
                "a program that falls over",
                "W1129 16:01:02.003456    1234 common.go:1] your configuration file uses a deprecated API spec\n\
                 panic: runtime error: invalid memory address or nil pointer dereference\n\
                 [signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x1234]\n\
                 \n\
                 goroutine 1 [running]:\n\
                 main.main()\n\
                 \t/go/src/kubeadm.go:25 +0x1d\n",
                "panic: runtime error: invalid memory address or nil pointer dereference\n[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x1234]",
            ),
            (
                "an error that another one followed",
                "error: error execution phase upload-config/kubeadm: could not bootstrap the admin user: unable to create ClusterRoleBinding: the server rejected our request: error: unknown\n\
                 To see the stack trace of this error execute with --v=5 or higher\n",
                "error execution phase upload-config/kubeadm: could not bootstrap the admin user: unable to create ClusterRoleBinding: the server rejected our request: error: unknown",
            ),
        ] {
            let output =
                Output { stdout: "[init] Using Kubernetes version: v1.37.2\n".into(), stderr: stderr.into() };
            assert_eq!(complaint(&output), told, "{what}");
        }
    }

    #[test]
    fn what_is_no_error_of_kubeadms_is_told_by_its_end() {
        let output = |stdout: &str, stderr: &str| Output { stdout: stdout.into(), stderr: stderr.into() };
        assert_eq!(complaint(&output("", "")), "");
        assert_eq!(complaint(&output("failed\n", "")), "failed");
        assert_eq!(
            complaint(&output("", "Job for x.service failed.\n\nSee journalctl.\n")),
            "Job for x.service failed.\nSee journalctl."
        );
        assert_eq!(
            complaint(&output("", "W1129 16:01:02.003456 1 a.go:1] only this\n")),
            "W1129 16:01:02.003456 1 a.go:1] only this"
        );
        // An error of klog's is told where there is nothing else, before warnings and without them.
        let failed = "I1129 16:01:02.003456 1 a.go:1] begins\nE1129 16:01:02.003456 1 a.go:2] \"command failed\" err=\"no\"\n";
        assert_eq!(
            complaint(&output("", failed)),
            "E1129 16:01:02.003456 1 a.go:2] \"command failed\" err=\"no\""
        );
        let many: String = (0..20).map(|n| format!("line {n}\n")).collect();
        assert!(complaint(&output("", &many)).starts_with("line 12\n"), "the last eight");
        // Killed while it waited: what it did last, not what it had warned of.
        let waits = output("[kubelet-start] Starting the kubelet\n", "\t[WARNING Swap]: swap is on\n");
        assert_eq!(complaint(&waits), "[kubelet-start] Starting the kubelet");
    }
}
