# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # set and read by the reader and by cluster.sh
# A registry of an operator's own on the machines' network: TLS by a CA of its own, and nothing without a login. Whoever reads
# this has read cluster.sh, and has `on_the_bridge`.

registry=10.0.0.2:5000

# Into the cluster file and its secrets, before they are rendered: the registry itself, and another one that it mirrors.
name_registry() {
    local password
    mkdir -p "$work/registry/tls"
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=registry' -addext "subjectAltName=IP:${registry%:*}" \
        -keyout "$work/registry/key.pem" -out "$work/registry/tls/ca.crt" 2>/dev/null
    # With what a shell, TOML or a URL would take for something else.
    password="\$p'a\"s:s@$(openssl rand -hex 4)"
    (
        umask 077
        P=$password python3 - "$registry" "$work" <<'END'
import base64, json, os, pathlib, sys
registry, work, password = sys.argv[1], pathlib.Path(sys.argv[2]), os.environ["P"]
login = base64.b64encode(f"puller:{password}".encode()).decode()
(work / "registry/login.json").write_text(json.dumps({"auths": {registry: {"auth": login}}}))
# Docker has mirrors of docker.io alone.
cluster = (work / 'cluster.toml').read_text()
mirrored = [] if 'runtime = "docker"' in cluster else ["private.test"]
# Nothing is in the image for CRI-O.
if 'runtime = "crio"' in cluster:
    mirrored += ["registry.k8s.io", "ghcr.io", "kindling.test"]
mirror = "".join(f'[[registries]]\nhost = "{host}"\nmirrors = ["https://{registry}"]\n\n' for host in mirrored)
# Another one, whose certificate nobody can verify.
mirror += f'[[registries]]\nhost = "{registry.split(":")[0]}:5001"\ninsecure = true\n\n'
entries = mirror + f"""[[registries]]
host = "{registry}"
username = "puller"
ca = '''
{(work / 'registry/tls/ca.crt').read_text()}'''

"""
for name, before, text in [("cluster.toml", "[nodes]\n", entries),
                           ("secrets.toml", "[pki]\n", f'[registries."{registry}"]\npassword = {json.dumps(password)}\n\n')]:
    file = work / name
    old = file.read_text()
    assert old.count("\n" + before) == 1, name
    file.write_text(old.replace("\n" + before, "\n" + text + before))
END
        # bcrypt, which is all that the registry reads.
        P=$password perl -e 'print "puller:", crypt($ENV{P}, "\$2b\$05\$" . "kindlingkindlingkindlin"), "\n"' >"$work/registry/users"
    )
    cat >"$work/registry/config.yml" <<END
version: 0.1
storage: {filesystem: {rootdirectory: $(realpath "$work")/registry/data}}
http: {addr: "$registry", tls: {certificate: $(realpath "$work")/registry/tls/ca.crt, key: $(realpath "$work")/registry/key.pem}}
auth: {htpasswd: {realm: kindling, path: $(realpath "$work")/registry/users}}
END
    # The same images for whoever asks, under a certificate of somebody else's.
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=elsewhere' -keyout "$work/registry/open.pem" -out "$work/registry/open.crt" 2>/dev/null
    cat >"$work/registry/open.yml" <<END
version: 0.1
storage: {filesystem: {rootdirectory: $(realpath "$work")/registry/data}}
http: {addr: "${registry%:*}:5001", tls: {certificate: $(realpath "$work")/registry/open.crt, key: $(realpath "$work")/registry/open.pem}}
END
}

# Once the machines' network is there. It ends with the test.
serve_registry() {
    on_the_bridge docker-registry serve "$work/registry/config.yml" >"$work/registry/log" 2>&1 &
    registry_processes+=($!)
    on_the_bridge docker-registry serve "$work/registry/open.yml" >"$work/registry/open.log" 2>&1 &
    registry_processes+=($!)
    eventually "the operator's registry refuses strangers" 10 strangers_are_refused
    another_image "$folder/images/tools-1.tar" "$work/registry/private.tar"
    push "$work/registry/private.tar" private/tools:1
}
# The same program as an image of its own. From 1.35 on a kubelet that pulled an image asks for a login of whoever names it by another
# name, also where the machine had it before: the pods of the tests, which pull nothing, would not start again.
another_image() { # ARCHIVE OUT
    python3 - "$1" "$2" <<'END'
import hashlib, io, json, sys, tarfile
with tarfile.open(sys.argv[1]) as old, tarfile.open(sys.argv[2], "w") as new:
    manifest = json.load(old.extractfile("manifest.json"))
    [image] = manifest
    config = json.load(old.extractfile(image["Config"]))
    config.setdefault("config", {}).setdefault("Labels", {})["kindling.test"] = "private"
    text = json.dumps(config).encode()
    image |= {"Config": hashlib.sha256(text).hexdigest() + ".json", "RepoTags": ["kindling.test/private:1"]}
    files = {image["Config"]: text, "manifest.json": json.dumps(manifest).encode()}
    files |= {layer: old.extractfile(layer).read() for layer in image["Layers"]}
    for name, content in files.items():
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        new.addfile(entry, io.BytesIO(content))
END
}
push() { # ARCHIVE PATH
    on_the_bridge skopeo copy --quiet --dest-authfile "$work/registry/login.json" --dest-cert-dir "$work/registry/tls" \
        "docker-archive:$1" "docker://$registry/$2" >/dev/null
}
# Each under the path that it has on its own registry.
push_all_images() {
    local archive name
    for archive in "$folder"/images/*.tar; do
        name=$(tar -xOf "$archive" manifest.json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["RepoTags"][0])')
        push "$archive" "${name#*/}"
    done
    say "ok: the images of $version are in the operator's registry"
}
strangers_are_refused() {
    [[ $(on_the_bridge curl -sS --cacert "$work/registry/tls/ca.crt" -o /dev/null -w '%{http_code}' "https://$registry/v2/") == 401 ]]
}

# By the kubelet, under its own name, and where it is the mirror of another one.
private_images_are_pulled() {
    local host hosts=("$registry" "${registry%:*}:5001" private.test) number=0
    [[ ${RUNTIME-} != docker ]] || unset "hosts[2]"
    for host in "${hosts[@]}"; do
        number=$((number + 1))
        kubectl get pod "private-$number" >/dev/null 2>&1 ||
            kubectl run "private-$number" --image="$host/private/tools:1" --image-pull-policy=Always --restart=Never --command -- true
    done
    for ((; number > 0; number--)); do
        kubectl get pod "private-$number" -o 'jsonpath={.spec.containers[0].image} {.status.phase} {.status.containerStatuses[0].state}{"\n"}'
        [[ $(kubectl get pod "private-$number" -o 'jsonpath={.status.phase}') == Succeeded ]] || return 1
    done
}
