"""The VIP's figures: how long nobody answers and how many requests fail, beside the lecture's keepalived and haproxy
and kubeadm's documented ones (tests/bench.d/vip/), in namespaces and in the same run.

    TRIALS=20    how often each fault happens to each of them; some two minutes a trial

A client opens a TLS connection through the VIP every 20 ms and gives each a second.
"""

import json
import os
import pathlib
import subprocess
from statistics import median

KINDLING = pathlib.Path("target/release/kindling")
WAYS = ["kindling", "lecture", "kubeadm"]
# What is aimed at: seconds without an answer, requests that failed, moves of the VIP there and back.
AIMS = {
    "node death": ("silence_s", 0.5),
    "haproxy death": ("silence_s", 0.8),
    "haproxy freeze": ("silence_s", 0.8),
    "API death": ("failed", 1),
    "API hang": ("failed", 3),
    "1 s pause": ("back", 0),
}


def measure(_):
    """Runs the trials."""
    out = pathlib.Path("build/bench/vip-trials.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    trials = os.environ.get("TRIALS", "20")
    if not trials.isdigit() or int(trials) < 1:
        raise SystemExit("bench: TRIALS is at least 1")
    packages = ("ip:iproute2 keepalived:keepalived haproxy:haproxy nginx:nginx curl:curl pgrep:procps killall:psmisc "
                "python3:python3")
    subprocess.run(["bash", "-c", f". tests/lib/packages.sh && need_packages {packages}"], check=True)
    command = ["image/cargo", "test", "--locked", "--test", "vip_bench", "--", "--ignored", "--nocapture"]
    log = out.with_suffix(".log")
    # Network namespaces are root's.
    environment = os.environ | {"CARGO_AS_ROOT": "yes", "TRIALS": trials, "OUT": str(out.resolve())}
    # The watcher of the product, where it is built; the tests' own otherwise.
    if KINDLING.exists():
        environment["KINDLING"] = str(KINDLING.resolve())
    with log.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=file, env=environment)
    if done.returncode or not out.exists():
        raise SystemExit(f"bench: the VIP's trials did not end well; see {log}\n{log.read_text()[-2000:]}")
    return {"trials": json.loads(out.read_text())}


def text(result):
    runs = result["trials"]
    count = len(next(iter(runs["kindling"].values())))
    lines = [f"The VIP, median (worst) of {count} trials each, side by side; a request every 20 ms"]
    lines += table("seconds without an answer", runs, lambda trial: trial["silence_s"], "silence_s", 2)
    lines += table("requests that failed", runs, lambda trial: trial["failed"], "failed", 0)
    lines += table("moves of the VIP, there and back", runs, lambda trial: trial["there"] + trial["back"], "back", 0)
    lines.append("  +: had not ended after 20 s")
    return "\n".join(lines)


def table(title, runs, value, aimed, digits):
    rows = [[title, *WAYS, "aim"]]
    for fault, (figure, limit) in AIMS.items():
        row = [fault]
        for way in WAYS:
            trials = runs[way][fault]
            values = [value(trial) for trial in trials]
            more = "" if all(trial["ended"] for trial in trials) else "+"
            row.append(f"{median(values):.{digits}f} ({max(values):.{digits}f}){more}")
        worst = max(trial[figure] for trial in runs["kindling"][fault])
        says = "none back" if figure == "back" else f"<= {limit:g}"
        row.append(f"{says} {'met' if worst <= limit else 'MISSED'}" if figure == aimed else "")
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["", *("  " + "   ".join(cell.rjust(width) if column else cell.ljust(width)
                                   for column, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows)]
