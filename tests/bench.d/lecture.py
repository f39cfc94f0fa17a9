"""Seeds of the baseline: the same machines, whose user-data runs the lecture's commands instead of the agent."""

import json
import pathlib
import shlex
import shutil
import subprocess
import tomllib

SCRIPT = pathlib.Path(__file__).with_name("lecture.sh")


def make(rendered, out, sandbox, disks=False, in_turn=False):
    """Makes a folder like that of `kindling render`, from one. `disks`: also what QEMU reads. `in_turn`: each machine
    joins only when the control plane before it has joined, as the lecture does it."""
    roles = {path.parent.name: tomllib.loads(path.read_text()) for path in sorted(rendered.glob("*/role.toml"))}
    control_planes = [name for name, role in roles.items() if role["role"] == "control-plane"]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(mode=0o700, parents=True)
    shutil.copy(rendered / "admin.conf", out)
    for folder in sorted(p for p in rendered.iterdir() if p.is_dir()):
        node = out / folder.name
        node.mkdir()
        shutil.copy(folder / "network-config", node)
        # A machine that saw one of the two seeds must take the other for a new one.
        meta = (folder / "meta-data").read_text().replace("instance-id: ", "instance-id: lecture-")
        (node / "meta-data").write_text(meta)
        role = roles[folder.name]
        head, found, _ = (folder / "user-data").read_text().partition("write_files:\n")
        if not found:
            raise SystemExit(f"bench: {folder}/user-data has no write_files: lecture.py must follow its new form")
        files = pki(role, control_planes) + lecture(role, sandbox, control_planes, in_turn)
        (node / "user-data").write_text(head + user_data(files))
        if disks:
            names = ["meta-data", "network-config", "user-data"]
            command = ["xorriso", "-as", "mkisofs", "-quiet", "-V", "CIDATA", "-J", "-r", "-o", "seed.img", *names]
            subprocess.run(command, cwd=node, check=True, capture_output=True)


def pki(role, control_planes):
    """A single control plane gets the CA alone, as `kindling up` asks the API with a certificate that was rendered
    beforehand: kubeadm makes the other CAs and keys itself, as in the lecture. Several get all that they must share,
    which the lecture has kubeadm hand over by a certificate key that a person copies."""
    if role["role"] != "control-plane":
        return []
    shared = {"ca.crt": "ca", "ca.key": "ca_key"}
    if len(control_planes) > 1:
        shared |= {"front-proxy-ca.crt": "front_proxy_ca", "front-proxy-ca.key": "front_proxy_ca_key",
                   "etcd/ca.crt": "etcd_ca", "etcd/ca.key": "etcd_ca_key", "sa.pub": "sa_public", "sa.key": "sa_key"}
    # Beside the place where kubeadm looks, as its reset takes all away from there.
    return [(f"{folder}/{name}", role["pki"][key], "0600" if name.endswith(".key") else "0644")
            for folder in ("/etc/kubernetes/pki", "/etc/lecture/pki") for name, key in shared.items()]


def lecture(role, sandbox, control_planes, in_turn):
    variables = environment(role, sandbox)
    if role["role"] == "control-plane":
        # The lecture has 100 and 80: a difference that its check's weight of 30 can turn around.
        place = control_planes.index(role["name"])
        variables |= {"ROLE": "init" if role["control_plane"]["first"] else "control-plane",
                      "STATE": "MASTER" if place == 0 else "BACKUP", "PRIORITY": 100 - 20 * place}
        before = control_planes[:place]
    else:
        before = control_planes
    variables["AFTER"] = before[-1] if in_turn and before else ""
    text = "".join(f"{key}={shlex.quote(str(value))}\n" for key, value in variables.items())
    return [("/etc/lecture/lecture.env", text, "0600"), ("/etc/lecture/lecture.sh", SCRIPT.read_text(), "0700")]


def user_data(files):
    """Users, host name and the like stay as rendered; this is what follows them. JSON is YAML."""
    parts = {
        # The agent's start is queued when the machine boots, and waits for cloud-init: `--now` takes it back.
        "bootcmd": [["systemctl", "mask", "--now", "--no-block", "kindling.service"]],
        "write_files": [{"path": path, "content": text, "permissions": mode} for path, text, mode in files],
        "runcmd": [["/etc/lecture/lecture.sh"]],
    }
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in parts.items())


def environment(role, sandbox):
    """What the lecture has a person know at each machine. The token is chosen beforehand and not copied, and nobody
    has to wait for it: better for the baseline than the lecture itself."""
    endpoint = role["endpoint"]
    hosts = {endpoint["host"]: endpoint["vip"], **role["hosts"]}
    return {
        "NAME": role["name"],
        "ROLE": role["role"],
        "ADDRESS": role["network"]["address"].partition("/")[0],
        "VIP": endpoint["vip"],
        "ENDPOINT": f'{endpoint["host"]}:{endpoint["port"]}',
        "HOSTS": "\n".join(f"{address} {name}" for name, address in hosts.items()),
        "TOKEN": role["token"],
        "PODS": role["pods"],
        "SERVICES": role["services"],
        "VERSION": role["kubernetes"],
        "ADDONS": " ".join(role["addons"]),
        # The lecture changes the name in containerd's configuration by hand, to what kubeadm uses.
        "SANDBOX": sandbox,
    }
