"""What the runs say, as numbers and as a table."""

from statistics import median

PHASES = [
    ("written", "cloud-init's files written"),
    ("started", "agent / script starts"),
    ("kubeadm", "kubeadm starts"),
    ("kubeadm_done", "kubeadm has ended"),
    ("ready", "Node Ready"),
]
WAYS = ["kindling", "lecture"]
# Decimal megabytes.
AIMS = {"cpu": 0.3, "memory": 20.0, "binary": 12.0}


def summary(runs, binary_bytes):
    """Every figure as its median and its worst."""
    return {"agent": agent(runs, binary_bytes), "phases": phases(runs)}


def agent(runs, binary_bytes):
    nodes = {}
    for run in (run for run in runs if run["way"] == "kindling"):
        for name, node in run["nodes"].items():
            costs = nodes.setdefault(name, {"cpu": [], "memory": []})
            costs["cpu"].append(node["agent"]["cpu_seconds"])
            # The record has MiB, the aim has MB.
            costs["memory"].append(node["agent"]["memory_mb"] * 1.048576)
    costs = {name: {cost: spread(values) for cost, values in node.items()} for name, node in nodes.items()}
    return {"binary_mb": binary_bytes / 1e6, "nodes": costs}


def phases(runs):
    found = {}
    for way in WAYS:
        mine = [run for run in runs if run["way"] == way]
        nodes = {name: {key: spread([run["nodes"][name].get(key) for run in mine]) for key, _ in PHASES}
                 for name in mine[0]["nodes"]}
        found[way] = {"nodes": nodes, "cluster_ready": spread([run["cluster_ready"] for run in mine])}
    return found


def spread(values):
    known = [value for value in values if value is not None]
    return {"median": median(known), "worst": max(known)} if known else None


def text(result):
    agent, phases, count = result["agent"], result["phases"], result["runs_each"]
    names = list(agent["nodes"])
    lines = [f"The agent itself, median (worst) of {count} runs", *table(agent_rows(agent, names))]
    if result["driver"] == "qemu":
        lines.append("The aims are for a processor that is not emulated.")
    lines += ["", f"Seconds from power-on, median (worst) of {count} runs each, in turn"]
    lines += table(phase_rows(phases, names))
    ours, theirs = (phases[way]["cluster_ready"]["median"] for way in WAYS)
    than = "sooner" if ours < theirs else "LATER"
    lines += ["", f"The cluster is Ready {abs(theirs - ours):.1f} s {than} than with the script."]
    return "\n".join(lines + trust(result["runs"], f"{result['driver']}, {result['cpus']} CPUs"))


def trust(runs, host):
    """Whether the machine had time for the runs."""
    busy = max(run["busy_before"] for run in runs)
    lines = [f"{host}; others kept up to {busy:.1f} of them busy before a run."]
    if busy > 0.2:
        lines.append("That is too much for figures to keep: measure again on a machine that does nothing else.")
    return lines


def agent_rows(agent, names):
    def row(title, cost, digits):
        values = [agent["nodes"][name][cost] for name in names]
        met = max(value["worst"] for value in values) < AIMS[cost]
        return [title, *(cell(value, digits) for value in values), aim(AIMS[cost], met)]

    binary = agent["binary_mb"]
    return [["", *names, "aim"],
            row("processor time, s", "cpu", 3),
            row("peak memory, MB", "memory", 1),
            ["binary, MB", *[f"{binary:.1f}"] * len(names), aim(AIMS["binary"], binary < AIMS["binary"])]]


def aim(limit, met, than="<"):
    return f"{than} {limit:g} {'met' if met else 'MISSED'}"


def phase_rows(phases, names):
    rows = [["", *(f"{way} {name}" for name in names for way in WAYS)]]
    for key, title in PHASES:
        rows.append([title, *(cell(phases[way]["nodes"][name][key], 1) for name in names for way in WAYS)])
    rows.append(["cluster Ready", *(cell(phases[way]["cluster_ready"], 1) for way in WAYS)])
    return rows


def cell(value, digits):
    return "-" if value is None else f"{value['median']:.{digits}f} ({value['worst']:.{digits}f})"


def table(rows):
    columns = max(map(len, rows))
    widths = [max(len(row[c]) for row in rows if c < len(row)) for c in range(columns)]
    aligned = [[cell.rjust(width) if c else cell.ljust(width) for c, (cell, width) in enumerate(zip(row, widths))]
               for row in rows]
    return ["  " + "   ".join(row).rstrip() for row in aligned]
