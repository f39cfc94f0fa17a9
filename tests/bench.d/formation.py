"""Three control planes and a worker in machines, from power-on to all Ready, three ways: Kindling's; plain kubeadm
joined one after the other, as the lecture does it; plain kubeadm joins all started at once. All have one endpoint, a
VIP on the control planes, and the CAs are everywhere beforehand, so nobody's copying is in the time."""

import json
import math
import pathlib
import subprocess
import sys

import lecture
from report import cell, spread, table, trust
from run import KINDLING, Cluster, need_tools, rendered, sandbox

# One that has not ended by then will not: even on a busy machine it takes two minutes.
PATIENCE = 600
TITLES = {"kindling": "Kindling", "in-turn": "kubeadm, one after the other", "at-once": "kubeadm, all at once"}
SUMS = {"cluster_ready": "all Ready", "all_done": "and every agent or script done"}
FILE = """version = 1
name = "formation"
kubernetes = "{version}"
addons = ["flannel"]
[endpoint]
host = "kubeapi.kindling.test"
vip = "10.0.0.10"
by = "stacked"
[network]
gateway = "10.0.0.2"
# Somebody to be asked: without that a plain kubeadm's CoreDNS ends, and its cluster never has names.
dns = ["10.0.0.2"]
[nodes]
cp1 = { role = "control-plane", address = "10.0.0.11/24" }
cp2 = { role = "control-plane", address = "10.0.0.12/24" }
cp3 = { role = "control-plane", address = "10.0.0.13/24" }
w1 = { role = "worker", address = "10.0.0.21/24" }
"""


def measure(count):
    need_tools("machines")
    ways, runs = clusters(), []
    for n in range(count):
        # Who comes later finds warmer caches, so they take turns in that, too.
        for way in ways[n % len(ways):] + ways[:n % len(ways)]:
            run = way.form(n + 1)
            ended = f"FAILED: {run['failed']}" if run["failed"] else f"Ready after {run['cluster_ready']:.1f} s"
            print(f"run {n + 1} of {count}, {way.name}: {ended}", file=sys.stderr, flush=True)
            runs.append(run)
    return {"runs_each": count, "patience": PATIENCE, "ways": {way.name: summary(way.name, runs) for way in ways},
            "runs": runs}


def clusters():
    """All ways, of one rendering: the same names, addresses and CAs."""
    inputs = pathlib.Path("build/bench-formation")
    if not (inputs / "secrets.toml").exists():
        subprocess.run([KINDLING, "new", inputs], check=True, stdout=subprocess.DEVNULL)
    kubernetes = subprocess.run(["tests/kubernetes/build"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    version = pathlib.Path(kubernetes, "VERSION").read_text().strip()
    (inputs / "cluster.toml").write_text(FILE.replace("{version}", version))
    file, seeds = rendered(inputs)
    ways = [Formation("kindling", file, seeds)]
    for name in ("in-turn", "at-once"):
        way = Formation(name, file, pathlib.Path(f"build/bench-formation-{name}/seeds"))
        lecture.make(seeds, way.seeds, sandbox(), in_turn=name == "in-turn")
        ways.append(way)
    return ways


class Formation(Cluster):
    def __init__(self, name, file, seeds):
        super().__init__(name, file, seeds, "machines", folder=f"build/bench-formation-{name}")

    def form(self, number):
        """Answers the run's figures; a cluster that does not form is one, too. The machines are gone afterwards."""
        # What each machine did when stays, of every run.
        self.log = self.folder / f"up-{number}.log"
        figures = {"way": self.name, "run": number, "failed": None} | self.begin()
        try:
            done = self.start("--timeout", str(PATIENCE))
            if not done.stdout:
                # The machines could not be started: that says nothing about any way.
                raise SystemExit(f"bench: {self.name} cannot be started; see {self.log}\n"
                                 f"{self.log.read_text()[-2000:]}")
            outcome = json.loads(done.stdout)
            figures["nodes"] = {node["name"]: node["ready_after"] for node in outcome["nodes"]}
            if done.returncode:
                kept = self.keep(f"failed-{number}")
                waiting = [node["name"] for node in outcome["nodes"] if not node["ready"]]
                figures["failed"] = f"{outcome['verdict']}, not ready: {' '.join(waiting)}; consoles in {kept}"
            else:
                figures["cluster_ready"] = max(figures["nodes"].values())
                # A control plane's Node may be Ready before its etcd member is there.
                figures["all_done"] = outcome["seconds"]
        finally:
            self.down()
        return figures


def summary(way, runs):
    mine = [run for run in runs if run["way"] == way]
    ended = [run for run in mine if not run["failed"]]
    figures = {"failures": len(mine) - len(ended)}
    figures |= {key: spread([run[key] for run in ended]) for key in SUMS}
    for name in mine[0]["nodes"]:
        figures[name] = spread([run["nodes"][name] for run in ended])
    return figures


def text(result):
    ways, count = result["ways"], result["runs_each"]
    nodes = [key for key in ways["kindling"] if key not in ("failures", *SUMS)]
    rows = [["", *TITLES.values()], ["never ended", *(f"{ways[way]['failures']} of {count}" for way in TITLES)]]
    for key in [*nodes, *SUMS]:
        rows.append([SUMS.get(key, f"{key} Ready"), *(cell(ways[way][key], 1) for way in TITLES)])
    lines = [f"Three control planes and a worker, seconds from power-on, median (worst) of {count} runs each, in turn",
             *table(rows), f"Never ended: not within {result['patience']} s. Its times are not in the medians."]
    ours, theirs = ways["kindling"], ways["at-once"]
    medians = [way["cluster_ready"]["median"] if way["cluster_ready"] else math.inf for way in (ours, theirs)]
    met = not ours["failures"] and medians[0] <= medians[1]
    lines.append(f"Aim, never fails and no slower than all at once: {'met' if met else 'MISSED'}")
    return "\n".join(lines + trust(result["runs"], f"machines, {result['cpus']} CPUs"))
