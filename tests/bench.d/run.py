"""One run: all machines powered on at the same moment, watched until every Node is Ready, and removed."""

import json
import os
import pathlib
import re
import subprocess
import threading
import time

KINDLING = "target/release/kindling"
IMAGE = "build/image/test"

# The role file, or the script, is there from the end of this stage on; the agent starts then, while the script's
# turn comes in cloud-init's last stage.
WRITTEN = re.compile(rb"Finished .*cloud-init-network\.service")
STARTED = re.compile(rb"kindling\[\d+/\d+\] ")
SCRIPTS_KUBEADM = re.compile(rb"kindling\[\d+/\d+\] (init: started|join: started|join: waiting: try )")
KUBEADM_DONE = re.compile(rb"kindling\[\d+/\d+\] (init|join): done")
# `join: started` on the agent's console is where its waiting for the cluster begins.
AGENTS_KUBEADM = re.compile(rb"kindling\[\d+/\d+\] (init|join): waiting: kubeadm (init|join) runs")


def need_tools(driver):
    subprocess.run(["bash", "-c", f". tests/lib/packages.sh && need_driver {driver}"], check=True)


def rendered(inputs):
    """The cluster file and the seeds of a folder that `kindling new` made."""
    file, secrets, seeds = inputs / "cluster.toml", inputs / "secrets.toml", inputs / "seeds"
    # The token of an earlier day has ended.
    subprocess.run([KINDLING, "new", "--renew", inputs], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([KINDLING, "render", "--cluster", file, "--secrets", secrets, "--out", seeds],
                   check=True, stdout=subprocess.DEVNULL)
    return file, seeds


def sandbox():
    """The pause image that is preloaded."""
    images = json.loads(pathlib.Path(IMAGE, "tree/usr/share/kindling/images.json").read_text())
    return next(image["name"] for image in images if "/pause:" in image["name"])


class Watch(threading.Thread):
    """Notes when lines come on the machines' consoles: their own clocks may differ from the host's."""

    def __init__(self, state):
        super().__init__(daemon=True)
        self.state, self.seen, self.ended = state, {}, threading.Event()

    def run(self):
        rest, offsets = {}, {}
        while not self.ended.wait(0.05):
            for path in self.state.glob("nodes/*/console.log"):
                node = path.parent.name
                with path.open("rb") as log:
                    log.seek(offsets.get(node, 0))
                    text = log.read()
                offsets[node] = offsets.get(node, 0) + len(text)
                *lines, rest[node] = (rest.get(node, b"") + text).split(b"\n")
                for line in lines:
                    self.hear(self.seen.setdefault(node, {}), line, time.time())

    @staticmethod
    def hear(seen, line, now):
        if WRITTEN.search(line):
            seen.setdefault("written", now)
        if STARTED.search(line):
            seen.setdefault("started", now)
        if SCRIPTS_KUBEADM.search(line):
            # The last one is that of the try that worked.
            seen["kubeadm"] = now
        if AGENTS_KUBEADM.search(line):
            seen.setdefault("agents_kubeadm", now)
        if KUBEADM_DONE.search(line):
            seen["kubeadm_done"] = now


class Cluster:
    """What one of the two ways needs: the cluster file, seeds, and a state folder of its own."""

    def __init__(self, name, file, seeds, driver, folder=None):
        self.name, self.file, self.seeds, self.driver = name, file, seeds, driver
        self.folder = pathlib.Path(folder or f"build/bench-{name}")
        self.state, self.log = self.folder / "state", self.folder / "up.log"
        self.folder.mkdir(parents=True, exist_ok=True)

    def down(self):
        subprocess.run([KINDLING, "down", "--cluster", self.file, "--state", self.state],
                       check=True, stdout=subprocess.DEVNULL)

    def begin(self):
        """What the host does before the machines are there."""
        self.down()
        os.sync()
        return {"load_before": os.getloadavg()[0], "busy_before": round(busy_cpus(3), 2)}

    def measure(self):
        """Answers the run's figures, in seconds since the machines' power-on; the machines are gone afterwards."""
        figures = {"way": self.name} | self.begin()
        watch = Watch(self.state)
        begun = busy_seconds()
        try:
            watch.start()
            outcome = self.up()
            figures["cpu_seconds_of_the_host"] = round(busy_seconds() - begun, 1)
            watch.ended.set()
            watch.join()
            figures["nodes"] = {node["name"]: self.figures_of(node, watch.seen[node["name"]])
                                for node in outcome["nodes"]}
            figures["cluster_ready"] = max(node["ready"] for node in figures["nodes"].values())
        finally:
            watch.ended.set()
            self.down()
        return figures

    def start(self, *options):
        command = [KINDLING, "up", "--json", "--driver", self.driver, "--cluster", self.file, "--seeds", self.seeds,
                   "--image", IMAGE, "--state", self.state, *options]
        with self.log.open("w") as errors:
            return subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True)

    def keep(self, name):
        """Copies the consoles, which go away with the machines."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        for console in self.state.glob("nodes/*/console.log"):
            (folder / f"{console.parent.name}.console.log").write_bytes(console.read_bytes())
        return folder

    def up(self):
        done = self.start()
        if done.returncode:
            raise SystemExit(f"bench: {self.name} did not come up ({done.returncode}); see {self.log} and "
                             f"{self.keep('failed')}\n{self.log.read_text()[-2000:]}")
        return json.loads(done.stdout)

    def figures_of(self, node, seen):
        name = node["name"]
        power_on = json.loads((self.state / "nodes" / name / "power-on.json").read_text())["at"]
        figures = {key: at - power_on for key, at in seen.items()}
        figures["ready"] = node["ready_after"]
        if self.name == "kindling":
            status = self.record(name)
            figures["kubeadm"] = figures.pop("agents_kubeadm")
            figures["agent"] = {key: status[key] for key in ("cpu_seconds", "memory_mb", "seconds")}
            figures["steps"] = {step["id"]: step.get("seconds") for step in status["steps"]}
        return {key: round(value, 2) if isinstance(value, float) else value for key, value in figures.items()}

    def record(self, name):
        """The agent's own record, of the machine's disk."""
        if self.driver == "qemu":
            return self.by_pod(name)
        return json.loads((self.state / "nodes" / name / "var/lib/kindling/status.json").read_text())

    def by_pod(self, name):
        """A running VM's disk cannot be read from here, but a pod on that node can."""
        script = "cat /node/status.json"
        pod = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"bench-{name}"},
            "spec": {
                "nodeName": name, "restartPolicy": "Never", "hostNetwork": True,
                "tolerations": [{"operator": "Exists"}],
                "volumes": [{"name": "node", "hostPath": {"path": "/var/lib/kindling"}}],
                "containers": [{"name": "read", "image": "kindling.test/tools:1", "imagePullPolicy": "Never",
                                "command": ["sh", "-c", script], "securityContext": {"runAsUser": 0},
                                "volumeMounts": [{"name": "node", "mountPath": "/node", "readOnly": True}]}],
            },
        }
        self.kubectl("apply", "-f", "-", input=json.dumps(pod))
        deadline = time.monotonic() + 300
        while self.kubectl("get", "pod", f"bench-{name}", "-o", "jsonpath={.status.phase}") != "Succeeded":
            if time.monotonic() > deadline:
                raise SystemExit(f"bench: the pod that reads {name}'s disk does not end")
            time.sleep(2)
        return json.loads(self.kubectl("logs", f"bench-{name}"))

    def kubectl(self, *arguments, **options):
        built = subprocess.run(["tests/kubernetes/build"], check=True, stdout=subprocess.PIPE, text=True)
        command = [f"{built.stdout.strip()}/bin/kubectl", "--kubeconfig", self.state / "admin.conf", *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def busy_seconds():
    """Processor seconds that all of this host has spent since its start, with what a hypervisor took away."""
    line = pathlib.Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _, _, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def busy_cpus(seconds):
    """How many processors others keep busy: the load average still remembers the run before."""
    begun = busy_seconds()
    time.sleep(seconds)
    return (busy_seconds() - begun) / seconds
