#!/usr/bin/env python3
"""Writes the container images of a test cluster, one archive an image, from compiled programs and unpacked packages.

    images.py PROGRAMS DEBS OUT ADDON

PROGRAMS may be empty: then the image of the tests' own tools is all that is made. ADDON is flannel's manifest. The archives are in `docker save`'s format with gzipped layers, which `ctr images import` and `docker load` both
take. Names and tags are what the compiled kubeadm asks for. Owner, times and order are fixed.
"""
import gzip
import hashlib
import io
import json
import os
import re
import stat
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

EPOCH = int(os.environ["SOURCE_DATE_EPOCH"])
HERE = Path(__file__).resolve().parent
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
# Debian 12's layout: /bin, /sbin and /lib* are links into /usr, whatever its packages say.
MERGED = ("bin", "sbin", "lib", "lib64")
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


class Layer:
    """A file system in memory: path without a leading slash -> tar header and content."""

    def __init__(self, debs):
        self.debs = debs
        self.entries = {}
        for name in MERGED:
            self.link(name, f"usr/{name}")
        self.folder("tmp", 0o1777)
        self.folder("run", 0o755)
        self.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
        self.file("etc/group", b"root:x:0:\nnogroup:x:65534:\n")
        # Go's resolver asks DNS before /etc/hosts if this is missing.
        self.file("etc/nsswitch.conf", b"hosts: files dns\n")

    def _add(self, path, kind, mode, content=b"", target=""):
        parent = os.path.dirname(path)
        if parent and parent not in self.entries:
            self.folder(parent, 0o755)
        info = tarfile.TarInfo(path)
        info.type, info.mode, info.linkname = kind, mode, target
        info.mtime, info.size = EPOCH, len(content)
        self.entries[path] = (info, content)

    def folder(self, path, mode):
        self._add(path, tarfile.DIRTYPE, mode)

    def file(self, path, content, mode=0o644):
        self._add(path, tarfile.REGTYPE, mode, content)

    def link(self, path, target):
        self._add(path, tarfile.SYMTYPE, 0o777, target=target)

    def program(self, source, path):
        """Adds a program of our own and the libraries it needs."""
        self.file(path, source.read_bytes(), 0o755)
        self._libraries(source)

    def package_file(self, path):
        """Adds a file of a Debian package at its own place, with the libraries it needs."""
        source = self.found(path)
        mode = stat.S_IMODE(source.stat().st_mode) & 0o755
        path = path if path.startswith(("usr/", "etc/")) else f"usr/{path}"
        self.file(path, source.read_bytes(), mode)
        self._libraries(source)

    def found(self, path):
        """Where a file lies: newer releases have in usr/ what older ones link there."""
        return next(p for p in (self.debs / path, self.debs / "usr" / path) if p.exists())

    def _libraries(self, source):
        with source.open("rb") as f:
            if f.read(4) != b"\x7fELF":
                return
        text = subprocess.run(["readelf", "-ldW", source], check=True, capture_output=True, text=True).stdout
        for name in re.findall(r"\(NEEDED\).*\[(.+)\]", text):
            found = [p for p in self.debs.glob(f"**/{name}") if "linux-gnu" in str(p.parent)]
            if not found:
                sys.exit(f"images.py: {source} needs {name}, which none of the packages has")
            self._library(found[0], f"usr/lib/{found[0].parent.name}/{name}")
        for loader in re.findall(r"interpreter: /(\S+)\]", text):
            # Packages have a link at the path that programs name; the image gets the file itself.
            self._library(self.found(loader), f"usr/{loader}")

    def _library(self, source, path):
        if path not in self.entries:
            self.file(path, source.resolve().read_bytes(), 0o755)
            self._libraries(source.resolve())

    def iptables(self):
        """iptables with the nf_tables back end under its plain names, and all extensions."""
        for family in ("iptables", "ip6tables"):
            for tool in ("", "-save", "-restore"):
                self.link(f"usr/sbin/{family}{tool}", "xtables-nft-multi")
                self.link(f"usr/sbin/{family}-nft{tool}", "xtables-nft-multi")
        self.package_file("usr/sbin/xtables-nft-multi")
        for extension in sorted(self.debs.glob("usr/lib/*/xtables/*.so")):
            if not extension.is_symlink():
                self.package_file(str(extension.relative_to(self.debs)))
        for extension in sorted(self.debs.glob("usr/lib/*/xtables/*.so")):
            if extension.is_symlink():
                self.link(str(extension.relative_to(self.debs)), os.readlink(extension))
        for path in ("etc/protocols", "etc/services"):
            self.package_file(path)

    def busybox(self):
        """busybox under the names of all its applets that nothing else in the image has."""
        program = self.found("bin/busybox")
        self.package_file("bin/busybox")
        for applet in subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split():
            if not any(f"usr/{place}/{applet}" in self.entries for place in ("bin", "sbin", "local/bin")):
                self.link(f"usr/bin/{applet}", "busybox")

    def tar(self):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for path in sorted(self.entries):
                info, content = self.entries[path]
                tar.addfile(info, io.BytesIO(content))
        return out.getvalue()


def archive(out, name, layer, config):
    """Writes one image as OUT/<last part of name>.tar."""
    plain = layer.tar()
    # Level 1: a bake and a first boot wait for this more than a disk does.
    packed = gzip.compress(plain, compresslevel=1, mtime=0)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EPOCH))
    description = {
        "architecture": ARCHITECTURE,
        "os": "linux",
        "created": created,
        "config": {"Env": [f"PATH={PATH}"], "WorkingDir": "/", **config},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(plain).hexdigest()]},
        "history": [{"created": created, "created_by": "kindling tests/kubernetes"}],
    }
    description = json.dumps(description, sort_keys=True).encode()
    config_name = hashlib.sha256(description).hexdigest() + ".json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    path = out / (name.rsplit("/", 1)[1].replace(":", "-") + ".tar")
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, content in (
            ("manifest.json", json.dumps(manifest).encode()),
            (config_name, description),
            ("layer.tar", packed),
        ):
            info = tarfile.TarInfo(member)
            info.mode, info.mtime, info.size = 0o644, EPOCH, len(content)
            tar.addfile(info, io.BytesIO(content))
    return f"{name}  {path.stat().st_size / 1e6:.1f} MB, unpacked {len(plain) / 1e6:.1f} MB"


def images(programs, debs, names):
    """Yields name, layer and configuration of every image of these programs."""
    for component in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"):
        layer = Layer(debs)
        layer.program(programs / component, f"usr/local/bin/{component}")
        if component == "kube-proxy":
            layer.iptables()
            layer.package_file("usr/sbin/conntrack")
            layer.package_file("usr/sbin/nft")
        yield names[component], layer, {}

    layer = Layer(debs)
    for program in ("etcd", "etcdctl", "etcdutl"):
        layer.program(programs / program, f"usr/local/bin/{program}")
    yield names["etcd"], layer, {}

    layer = Layer(debs)
    layer.program(programs / "pause", "pause")
    yield names["pause"], layer, {"Entrypoint": ["/pause"], "User": "65535:65535"}

    layer = Layer(debs)
    layer.program(programs / "coredns", "coredns")
    yield names["coredns"], layer, {"Entrypoint": ["/coredns"]}

    layer = Layer(debs)
    for program in ("flanneld", "install-conf"):
        layer.program(programs / program, f"opt/bin/{program}")
    layer.package_file("bin/ip")
    layer.link("usr/sbin/ip", "../bin/ip")
    layer.iptables()
    yield names["flannel"], layer, {"Entrypoint": ["/opt/bin/flanneld"]}

    # The add-on's container copies the plugin to the node with `cp`.
    layer = Layer(debs)
    layer.program(programs / "flannel-cni-plugin", "flannel")
    layer.busybox()
    yield names["flannel-cni-plugin"], layer, {"Labels": {"kindling.test/version": "v0.9.1 of containernetworking/plugins"}}


def tools(debs):
    """What the tests run in pods: a shell, an HTTP server and client, a resolver."""
    layer = Layer(debs)
    layer.busybox()
    return "kindling.test/tools:1", layer, {"Cmd": ["sh"]}


def names_of(programs, addon):
    """Image names by their last part: what this kubeadm asks for, and what the add-on's manifest names."""
    kubeadm = programs / "kubeadm"
    version = subprocess.run([kubeadm, "version", "-o", "short"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    listed = subprocess.run(
        [kubeadm, "config", "images", "list", "--kubernetes-version", version], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.split()
    listed += re.findall(r"^\s*image:\s*(\S+)", addon.read_text(), re.MULTILINE)
    return {name.rsplit("/", 1)[1].split(":")[0]: name for name in listed}


def main():
    programs, debs, out, addon = map(Path, sys.argv[1:])
    wanted = [tools(debs)]
    if (programs / "kube-apiserver").exists():
        wanted += images(programs, debs, names_of(programs, addon))
    # Compression lets go of the interpreter's lock, so threads use both cores.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for line in pool.map(lambda image: archive(out, *image), wanted):
            print(line)


main()
