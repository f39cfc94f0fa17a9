"""The machines of one cluster under test, from outside: power, cables, control groups, and commands in them."""

import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import time

KINDLING = "target/release/kindling"
IMAGE = "build/image/test"
CGROUP = pathlib.Path("/sys/fs/cgroup")


def run(*command, check=True, timeout=120):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=timeout)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.returncode}: {done.stdout.strip()[-2000:]}")
    return done.stdout


class Machines:
    def __init__(self, folder, nodes, endpoint, kubectl):
        self.folder, self.nodes, self.endpoint, self.kubectl_path = folder, nodes, endpoint, kubectl
        self.state = folder / "state"
        self.names = list(nodes)
        # When each was powered on last, in seconds since the epoch.
        self.begun = {}
        self.control_planes = [name for name, node in nodes.items() if node["role"] == "control-plane"]
        self.kubernetes = [name for name, node in nodes.items() if node["role"] != "load-balancer"]

    def prepare(self):
        self.down()
        run(KINDLING, "render", "--cluster", self.folder / "cluster.toml", "--secrets", self.folder / "secrets.toml",
            "--out", self.folder / "seeds")
        run(KINDLING, "up", "--prepare", "--driver", "machines", "--cluster", self.folder / "cluster.toml", "--seeds",
            self.folder / "seeds", "--image", IMAGE, "--state", self.state, timeout=600)
        digest = hashlib.sha256(str(self.state.resolve()).encode()).hexdigest()[:6]
        self.bridge = f"kindling-{digest}"

    def down(self):
        run(KINDLING, "down", "--cluster", self.folder / "cluster.toml", "--state", self.state)

    def group(self, name):
        return f"{self.bridge}-{name}"

    def power(self, what, *names):
        if what == "on":
            self.begun |= {name: int(time.time()) for name in names if not self.is_on(name)}
        run(KINDLING, "power", "--state", self.state, what, *names)

    def is_on(self, name):
        return self.first_process(name) is not None

    def first_process(self, name):
        """The process that is number 1 in the machine: its namespace lies just below this one."""
        # With cgroup v1 systemd has a hierarchy of its own; with v2 there is one.
        group = self.group(name)
        for procs in [*CGROUP.glob(f"systemd/{group}/**/cgroup.procs"), *CGROUP.glob(f"{group}/**/cgroup.procs")]:
            for pid in procs.read_text().split():
                try:
                    status = pathlib.Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue
                if re.search(r"^NSpid:\s+\d+\s+1$", status, re.M):
                    return int(pid)
        return None

    def inside(self, name, *command, check=True, timeout=120):
        pid = self.first_process(name)
        if pid is None:
            if check:
                raise RuntimeError(f"{name} is off")
            return ""
        return run("nsenter", "-t", pid, "-m", "-u", "-i", "-n", "-p", "--", *command, check=check, timeout=timeout)

    def on_the_bridge(self, *command, **options):
        return run("ip", "netns", "exec", self.bridge, *command, **options)

    def freeze(self, name, frozen):
        v1 = CGROUP / "freezer" / self.group(name) / "freezer.state"
        v2 = CGROUP / self.group(name) / "cgroup.freeze"
        if v1.exists():
            v1.write_text("FROZEN" if frozen else "THAWED")
        elif v2.exists():
            v2.write_text("1" if frozen else "0")
        elif self.is_on(name):
            raise RuntimeError(f"{name} cannot be frozen: neither {v1} nor {v2} is there")

    def port(self, name):
        return f"n{self.names.index(name)}"

    def link(self, name, up):
        run("ip", "-n", self.bridge, "link", "set", self.port(name), "up" if up else "down",
            check=not up and self.is_on(name))

    def partition(self, names):
        """These machines see each other, and nobody else."""
        run("ip", "-n", self.bridge, "link", "add", "br1", "type", "bridge", check=False)
        run("ip", "-n", self.bridge, "link", "set", "br1", "up", check=False)
        for name in names:
            run("ip", "-n", self.bridge, "link", "set", self.port(name), "master", "br1", check=self.is_on(name))

    def heal(self):
        for name in self.names:
            run("ip", "-n", self.bridge, "link", "set", self.port(name), "master", "br0", "up", check=False)

    def lose_packets(self, name, losing):
        self.inside(name, "iptables", "-A" if losing else "-D", "INPUT", "-m", "statistic", "--mode", "random",
                    "--probability", "0.1", "-j", "DROP", check=losing and self.is_on(name))

    # What the cluster shows.

    def client(self, server=None):
        # Nobody resolves the endpoint's name on the bridge.
        return [self.kubectl_path, "--kubeconfig", self.folder / "seeds/admin.conf", "--server",
                f"https://{server or self.endpoint}", "--tls-server-name", "kubernetes"]

    def kubectl(self, *arguments, server=None):
        return self.on_the_bridge(*self.client(server), "--request-timeout=10s", *arguments, timeout=30)

    def wrong(self):
        """What is not as it should be, in a line; None if all is well."""
        ready = dict(line.split() for line in self.kubectl(
            "get", "nodes", "-o", 'jsonpath={range .items[*]}{.metadata.name}{" "}'
            '{.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}').splitlines())
        if ready != dict.fromkeys(self.kubernetes, "True"):
            return f"nodes: {ready}"
        for name in self.control_planes:
            members = self.members(name)
            if members != sorted(self.control_planes):
                return f"etcd members, asked at {name}: {members}"
        uids = {self.kubectl("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}",
                             server=f"{self.nodes[name]['address']}:6443") for name in self.control_planes}
        if len(uids) != 1:
            return f"kube-system has {len(uids)} UIDs"
        for name in self.names:
            status = self.status(name)
            # What it was before its power was cut says nothing.
            if status.get("started", 0) < self.begun.get(name, 0):
                return f"{name}: its agent did not begin yet"
            if status.get("state") != "done":
                return f"{name}: its agent is {status.get('state')}: {status.get('failure')}"
        return None

    def members(self, name):
        pki = self.state / "nodes" / name / "upper/etc/kubernetes/pki/etcd"
        text = self.on_the_bridge(
            "curl", "-sS", "--fail", "--max-time", "5", "--cacert", pki / "ca.crt", "--cert",
            pki / "healthcheck-client.crt", "--key", pki / "healthcheck-client.key", "-d", "{}",
            f"https://{self.nodes[name]['address']}:2379/v3/cluster/member/list")
        return sorted(member.get("name", "unstarted") for member in json.loads(text)["members"])

    def status(self, name):
        try:
            return json.loads((self.state / "nodes" / name / "var/lib/kindling/status.json").read_text())
        except (OSError, ValueError):
            return {}

    def second_run(self, name):
        """The steps that a second run of the agent changed; none, if all is well."""
        self.inside(name, "systemctl", "restart", "kindling.service", timeout=300)
        status = self.status(name)
        changed = [step["id"] for step in status["steps"] if step["state"] != "unchanged"]
        return [status["state"]] * (status["state"] != "done") + changed

    def no_way(self):
        """Where the Service of workload.yaml does not lead to another node's pod, or its kubelet streams nothing; None if all
        is well everywhere."""
        self.kubectl("apply", "-f", "tests/lib/workload.yaml")
        pods = dict(line.split() for line in self.kubectl(
            "get", "pods", "-l", "app=web", "--field-selector", "status.phase=Running", "-o",
            'jsonpath={range .items[*]}{.spec.nodeName}{" "}{.metadata.name}{"\\n"}{end}').splitlines())
        if sorted(pods) != sorted(self.kubernetes):
            return f"test pods run on {sorted(pods)}"
        for name, pod in pods.items():
            answers = self.kubectl("exec", pod, "--", "sh", "-c",
                                   "for n in 1 2 3 4 5; do timeout 5 wget -qO- http://web/; done").split()
            if not set(answers) & (set(self.kubernetes) - {name}):
                return f"from {name} the name web leads to: {answers}"
            self.on_the_bridge("tests/lib/streams", 1, name, pod, *self.client(), timeout=60)
        return None

    def wait(self, seconds, look=None):
        """Waits until all is well; answers what is wrong after so many seconds."""
        look = look or self.wrong
        deadline = time.monotonic() + seconds
        wrong = "nothing was seen yet"
        while time.monotonic() < deadline:
            try:
                wrong = look()
            except (RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
                wrong = str(error)
            if wrong is None:
                return None
            time.sleep(3)
        return wrong

    def save_logs(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.names:
            node = self.state / "nodes" / name
            if (node / "console.log").exists():
                shutil.copy(node / "console.log", folder / f"{name}.console.log")
            for source, suffix in [("var/lib/kindling/status.json", "status.json"),
                                   ("var/log/kindling/kubeadm.log", "kubeadm.log")]:
                if (node / source).exists():
                    shutil.copy(node / source, folder / f"{name}.{suffix}")
            journal = self.inside(name, "journalctl", "-b", "--no-pager", "-o", "short-precise", check=False)
            (folder / f"{name}.journal").write_text(journal)
            pods = self.inside(name, "sh", "-c", "tail -n 40 /var/log/pods/*/*/*.log", check=False)
            (folder / f"{name}.pods").write_text(pods)
