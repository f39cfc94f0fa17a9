//! CoreDNS's configuration, as far as an upstream goes.

use std::net::Ipv4Addr;

/// kubeadm's own, of all supported versions (kubeadm's cmd/kubeadm/app/phases/addons/dns/manifests.go).
const FORWARD: [&str; 3] = ["forward . /etc/resolv.conf {", "max_concurrent 1000", "}"];

/// The Corefile without kubeadm's `forward`; `None` where it is not there, or not as kubeadm wrote it.
pub fn without_upstream(corefile: &str) -> Option<String> {
    let lines: Vec<&str> = corefile.lines().collect();
    let is_forward = |window: &[&str]| window.iter().map(|line| line.trim()).eq(FORWARD);
    let start = lines.windows(FORWARD.len()).position(is_forward)?;
    let kept = lines[..start].iter().chain(&lines[start + FORWARD.len()..]);
    Some(kept.map(|line| format!("{line}\n")).collect())
}

/// Whether a resolv.conf(5) names a server that a pod can ask. A server on loopback is none: in a pod that address is the
/// pod's own, so that CoreDNS would ask itself. An IPv6 one, as a router announces it, is out of reach: pods have IPv4
/// addresses alone.
pub fn has_upstream(resolv_conf: &str) -> bool {
    let words = resolv_conf.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    words.into_iter().any(|words| match words[..] {
        ["nameserver", server, ..] => {
            server.parse::<Ipv4Addr>().is_ok_and(|ip| !ip.is_loopback() && !ip.is_unspecified())
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COREFILE: &str = ".:53 {
    errors
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
    }
    loop
}
";

    #[test]
    fn only_what_kubeadm_wrote_is_taken_out_and_nothing_else() {
        let without =
            COREFILE.replace("    forward . /etc/resolv.conf {\n       max_concurrent 1000\n    }\n", "");
        assert_eq!(without_upstream(COREFILE).as_deref(), Some(without.as_str()));
        assert_eq!(without_upstream(&without), None);
        for theirs in [
            COREFILE.replace("/etc/resolv.conf", "10.0.0.2"),
            COREFILE.replace("max_concurrent 1000", "max_concurrent 1000\n policy sequential"),
            COREFILE.replace("forward . /", "forward example.org /"),
        ] {
            assert_eq!(without_upstream(&theirs), None, "{theirs}");
        }
    }

    #[test]
    fn an_upstream_is_a_server_that_a_pod_can_ask() {
        assert!(has_upstream("# by systemd-resolved\nnameserver 10.0.0.2\nsearch .\n"));
        assert!(has_upstream("nameserver fd00::53\nnameserver 10.0.0.2\n"));
        assert!(has_upstream("nameserver fe80::1%eth0\nnameserver 10.0.0.2\n"));
        for none in [
            "",
            "# No DNS servers known.\nsearch .\n",
            "nameserver 127.0.0.53\noptions edns0\n",
            "nameserver ::1\n",
            "nameserver fe80::1%eth0\n",
            "nameserver 127.0.0.1\nnameserver fe80::1\n",
            "nameserver fd00::53\nnameserver 2001:db8::1\n",
        ] {
            assert!(!has_upstream(none), "{none}");
        }
    }
}
