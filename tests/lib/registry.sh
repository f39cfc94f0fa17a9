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
mirror = '' if 'runtime = "docker"' in (work / 'cluster.toml').read_text() else f'[[registries]]\nhost = "private.test"\nmirrors = ["https://{registry}"]\n\n'
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
}

# Once the machines' network is there. It ends with the test.
serve_registry() {
    on_the_bridge docker-registry serve "$work/registry/config.yml" >"$work/registry/log" 2>&1 &
    registry_process=$!
    eventually "the operator's registry refuses strangers" 10 strangers_are_refused
    on_the_bridge skopeo copy --quiet --dest-authfile "$work/registry/login.json" --dest-cert-dir "$work/registry/tls" \
        "docker-archive:$folder/images/tools-1.tar" "docker://$registry/private/tools:1" >/dev/null
}
strangers_are_refused() {
    [[ $(on_the_bridge curl -sS --cacert "$work/registry/tls/ca.crt" -o /dev/null -w '%{http_code}' "https://$registry/v2/") == 401 ]]
}

# By the kubelet, under its own name, and where it is the mirror of another one.
private_images_are_pulled() {
    local host hosts=("$registry" private.test) number=0
    [[ ${RUNTIME-} != docker ]] || hosts=("$registry")
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
