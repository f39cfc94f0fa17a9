"""What the agent itself costs, and how soon a control plane and a worker are Ready."""

import os
import pathlib
import subprocess
import sys

import lecture
import report
from run import KINDLING, Cluster, need_tools, rendered, sandbox

text = report.text


def measure(count):
    driver = os.environ.get("DRIVER", "machines")
    if driver not in ("machines", "qemu"):
        raise SystemExit("bench: DRIVER is machines or qemu")
    need_tools(driver)
    runs = in_turn(clusters(driver), count)
    result = {"driver": driver, "runs_each": count}
    return result | report.summary(runs, os.stat(KINDLING).st_size) | {"runs": runs}


def clusters(driver):
    """Both ways, of one rendering: the same names, addresses and CA."""
    inputs = pathlib.Path("build/bench-kindling")
    if not (inputs / "secrets.toml").exists():
        subprocess.run([KINDLING, "new", inputs, "--example", "demo"], check=True, stdout=subprocess.DEVNULL)
    file = inputs / "cluster.toml"
    if "\ndns = " not in file.read_text():
        # Somebody to be asked: without that a plain kubeadm's CoreDNS ends, and its cluster never has names.
        file.write_text(file.read_text().replace("\n[network]\n", '\n[network]\ndns = ["10.0.0.2"]\n'))
    file, seeds = rendered(inputs)
    baseline = Cluster("lecture", file, pathlib.Path("build/bench-lecture/seeds"), driver)
    lecture.make(seeds, baseline.seeds, sandbox(), disks=driver == "qemu")
    return [Cluster("kindling", file, seeds, driver), baseline]


def in_turn(ways, count):
    runs = []
    for n in range(count):
        # Who comes second finds warmer caches, so they take turns in that, too.
        for way in ways if n % 2 == 0 else reversed(ways):
            run = way.measure()
            print(f"run {n + 1} of {count}, {way.name}: Ready after {run['cluster_ready']:.1f} s", file=sys.stderr)
            runs.append(run)
    return runs
