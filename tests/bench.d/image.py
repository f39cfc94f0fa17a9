"""The image: how large it is, how long a bake takes, and where the time of a boot goes."""

import json
import os
import pathlib
import shutil
import subprocess
import time

from report import aim, cell, spread, table

IMAGE = pathlib.Path("build/image/test")
WORK = pathlib.Path("build/bench/image")
# Decimal megabytes of the qcow2, with the images of Kubernetes and without.
AIMS = {"with": 600, "without": 600}
BOOT = [("initrd", "kernel starts the initrd"), ("userspace", "the root is switched to"), ("agent", "the agent starts")]


def bake(cache, out, folder):
    """Seconds that a bake takes."""
    started = time.monotonic()
    environment = os.environ | {"DISTRO": "debian", "KUBERNETES": "dir", "KUBERNETES_DIR": str(folder),
                                "CRI_DOCKERD": os.environ.get("CRI_DOCKERD") or "none",
                                "KINDLING_CACHE": str(cache), "OUT": str(out)}
    subprocess.run(["image/bake"], env=environment, check=True, stderr=subprocess.DEVNULL)
    return time.monotonic() - started


def without_images(folder):
    """The same Kubernetes, its images left out."""
    bare = WORK / "kubernetes"
    bare.mkdir()
    for item in pathlib.Path(folder).iterdir():
        if item.name != "images":
            os.symlink(item, bare / item.name)
    return bare.absolute()


def size(out):
    return (out / "kindling.qcow2").stat().st_size / 1e6


def measure(count):
    folder = subprocess.run(["tests/kubernetes/build"], check=True, capture_output=True, text=True).stdout.strip()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    cache, out = WORK / "cache", WORK / "out"
    seconds = {"cold": bake(cache, out, folder), "unchanged": bake(cache, out, folder)}
    sizes = {"with": size(out)}
    # Another output folder: everything that is kept is in the cache.
    shutil.rmtree(out)
    seconds["cached"] = bake(cache, out, folder)
    shutil.rmtree(out)
    bake(cache, out, without_images(folder))
    sizes["without"] = size(out)
    shutil.rmtree(WORK)
    picture = WORK.parent / "boot.svg"
    runs = [json.loads(subprocess.run(["tests/bench.d/boot", str(IMAGE), str(picture)], check=True, capture_output=True,
                                      text=True).stdout) for _ in range(count)]
    return {"seconds": seconds, "megabytes": sizes, "runs": runs, "picture": str(picture),
            "boot": {key: spread([run[key] for run in runs]) for key, _ in BOOT}}


def text(result):
    sizes, seconds = result["megabytes"], result["seconds"]
    rows = [["", "MB", "aim"]]
    for key, title in (("without", "qcow2 without preloaded images"), ("with", "qcow2 with the images of Kubernetes")):
        rows.append([title, f"{sizes[key]:.0f}", aim(AIMS[key], sizes[key] < AIMS[key])])
    bakes = [["a bake", "seconds"], ["with nothing kept, packages downloaded", f"{seconds['cold']:.0f}"],
             ["with all steps kept", f"{seconds['cached']:.0f}"], ["with nothing changed", f"{seconds['unchanged']:.0f}"]]
    boot = [["seconds after the kernel's start", "median (worst)"], *([title, cell(result["boot"][key], 1)] for key, title in BOOT)]
    kvm = subprocess.run(["bash", "-c", ". tests/lib/kvm.sh && kvm_works"]).returncode == 0
    emulated = "" if kvm else " in an emulated processor, several times slower than a real one"
    return "\n".join([*table(rows), "", *table(bakes), "", *table(boot),
                      f"{len(result['runs'])} boots{emulated}; where the last one's time went: {result['picture']}"])
