"""A thousand workers that boot at the same moment: agent/examples/thousand_workers, once each way."""

import json
import subprocess
import sys

from report import aim, table

NAME = "thousand_workers"
# What the API does as a cluster forms in machines (`make bench WHAT=formation`): silent for 17 to 27 s, then for some
# 4 s without the token. haproxy in front takes connections before. The last one is a slow control plane.
WAYS = [
    ("VIP on control planes", ["--silent", "17", "--unknown", "5"]),
    ("haproxy in front", ["--silent", "17", "--unknown", "5", "--closed"]),
    ("a slow control plane", ["--silent", "40", "--unknown", "12"]),
]
# A node's requests while it waits.
AIM = 5


def measure(_count):
    subprocess.run(["image/cargo", "build", "--release", "--locked", "--quiet", "--example", NAME], check=True)
    ways = []
    for name, options in WAYS:
        command = [f"target/release/examples/{NAME}", *options]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=300)
        ways.append({"way": name, **json.loads(done.stdout)})
        print(f"simulated: {name}", file=sys.stderr)
    return {"ways": ways}


def text(result):
    ways = result["ways"]
    rows = [["", *(way["way"] for way in ways), "aim"]]
    for title, key in [
        ("API silent for, s", "silent_seconds"),
        ("then without the token for, s", "unknown_seconds"),
        ("requests of a node while it waits, mean", "requests_per_node"),
        ("requests of the node that sent most", "requests_of_the_busiest_node"),
        ("requests at the API in the worst second", "worst_second"),
        ("wait once the API knows the token, median, s", "wait_median"),
        ("the last one's, s", "wait_worst"),
        ("gave up", "gave_up"),
    ]:
        rows.append([title, *(f"{way[key]:g}" for way in ways)])
    rows[4].append(aim(AIM, all(way["requests_of_the_busiest_node"] <= AIM for way in ways), "<="))
    rows[8].append(aim(0, not any(way["gave_up"] for way in ways), "="))
    title = f"{ways[0]['workers']} workers that boot at the same moment (real time, real requests)"
    return "\n".join([title, *table(rows)])
