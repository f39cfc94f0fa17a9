"""Seeds of the baseline: the same machines, whose user-data runs the lecture's commands instead of the agent."""

import json
import pathlib
import shlex
import shutil
import subprocess
import tomllib

SCRIPT = pathlib.Path(__file__).with_name("lecture.sh")


def make(rendered, out, sandbox, disks):
    """Makes a folder like that of `kindling render`, from one. `disks`: also what QEMU reads."""
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
        role = tomllib.loads((folder / "role.toml").read_text())
        head, found, _ = (folder / "user-data").read_text().partition("write_files:\n")
        if not found:
            raise SystemExit(f"bench: {folder}/user-data has no write_files: lecture.py must follow its new form")
        (node / "user-data").write_text(head + user_data(role, sandbox))
        if disks:
            names = ["meta-data", "network-config", "user-data"]
            command = ["xorriso", "-as", "mkisofs", "-quiet", "-V", "CIDATA", "-J", "-r", "-o", "seed.img", *names]
            subprocess.run(command, cwd=node, check=True, capture_output=True)


def user_data(role, sandbox):
    """Users, host name and the like stay as rendered; this is what follows them. JSON is YAML."""
    files = [("/etc/lecture/lecture.env", environment(role, sandbox), "0600"),
             ("/etc/lecture/lecture.sh", SCRIPT.read_text(), "0700")]
    if role["role"] == "control-plane":
        # `kindling up` asks the API with the certificate that was rendered beforehand, so kubeadm must find the CA
        # that issued it. That is all it gets: it makes the other CAs and keys itself, as in the lecture.
        files += [("/etc/kubernetes/pki/ca.crt", role["pki"]["ca"], "0644"),
                  ("/etc/kubernetes/pki/ca.key", role["pki"]["ca_key"], "0600")]
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
    values = {
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
    return "".join(f"{key}={shlex.quote(value)}\n" for key, value in values.items())
