"""What goes wrong with one formation: chosen by a seed, so that it can be played again."""

import random

# Seconds from the first power-on in which a fault may begin: a formation takes about 70 s on two cores.
WINDOW = 80
SERVICES = ["kindling", "kubelet", "containerd", "keepalived", "haproxy"]
FAULTS = ["kill", "kill-all", "freeze", "link", "partition", "service-kill", "service-freeze", "loss"]


def plan(seed, names, topology):
    """The power-on of each machine and the faults, as events (second, what, arguments) in order."""
    dice = random.Random(seed)
    order = list(names)
    dice.shuffle(order)
    spread = dice.choice([0, 0, 5, 20, 60])
    events = [(round(dice.uniform(0, spread), 1) if spread else 0.0, "power-on", [name]) for name in order]
    for _ in range(dice.randint(1, 3)):
        events += fault(dice, names, topology)
    return sorted(events, key=lambda event: event[0])


def fault(dice, names, topology):
    at = round(dice.uniform(2, WINDOW), 1)
    what = dice.choice(FAULTS)
    name = dice.choice(names)

    def later(seconds):
        return round(at + seconds, 1)

    if what == "kill":
        return [(at, "power-off", [name]), (later(dice.uniform(0.5, 20)), "power-on", [name])]
    if what == "kill-all":
        # All are on from then on: their spread is past.
        return [(at, "power-off", list(names)), (later(dice.uniform(0.5, 10)), "power-on", list(names))]
    if what == "freeze":
        return [(at, "freeze", [name]), (later(dice.uniform(1, 30)), "thaw", [name])]
    if what == "link":
        return [(at, "link-down", [name]), (later(dice.uniform(1, 60)), "link-up", [name])]
    if what == "partition":
        group = dice.sample(names, dice.randint(1, len(names) - 1))
        return [(at, "partition", group), (later(dice.uniform(1, 60)), "heal", [])]
    if what == "loss":
        return [(at, "loss", [name]), (later(dice.uniform(5, 60)), "no-loss", [name])]
    service = dice.choice([s for s in SERVICES if s != "haproxy" or topology != "direct"])
    if what == "service-kill":
        return [(at, "service", [name, service, "KILL"])]
    return [(at, "service", [name, service, "STOP"]), (later(dice.uniform(1, 30)), "service", [name, service, "CONT"])]


def act(machines, what, arguments):
    """One event. A machine that is off feels nothing but its power."""
    if what == "power-on":
        machines.power("on", *arguments)
    elif what == "power-off":
        # A frozen machine cannot be killed; its power can be cut.
        for name in arguments:
            machines.freeze(name, False)
        machines.power("off", *arguments)
    elif what in ("freeze", "thaw"):
        machines.freeze(arguments[0], what == "freeze")
    elif what in ("link-down", "link-up"):
        machines.link(arguments[0], what == "link-up")
    elif what == "partition":
        machines.partition(arguments)
    elif what == "heal":
        machines.heal()
    elif what in ("loss", "no-loss"):
        machines.lose_packets(arguments[0], what == "loss")
    elif what == "service":
        name, service, signal = arguments
        machines.inside(name, "systemctl", "kill", f"--signal={signal}", f"{service}.service", check=False)
    else:
        raise ValueError(what)
