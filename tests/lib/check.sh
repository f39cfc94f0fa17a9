# shellcheck shell=bash disable=SC2034,SC2154
# Checks that are told one a line, and web servers on loopback. What reads this ends with `exit "$failed"`, and has a folder $work.

failed=0 servers=()
trap '((${#servers[@]} == 0)) || kill "${servers[@]}" 2>/dev/null || true' EXIT

ok() { printf 'ok: %s\n' "$1"; }
wrong() { printf 'FAILED: %s\n' "$1" >&2 && failed=1; }
# What came is told where it is not what was wanted.
same() { if [[ $2 == "$3" ]]; then ok "$1"; else wrong "$1: $(printf '%q, not %q' "$2" "$3")"; fi; }
has() { if [[ $2 == *"$3"* ]]; then ok "$1"; else wrong "$1: no \"$3\" in: $2"; fi; }

port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
# Files over HTTP, or HTTPS; returns once it answers.
serve() { # FOLDER PORT [CERTIFICATE KEY]
    python3 - "$@" <<'END' >>"$work/server.log" 2>&1 &
import functools, http.server, ssl, sys
folder, port, *tls = sys.argv[1:]
class Handler(http.server.SimpleHTTPRequestHandler):
    # By 1.0 a TLS connection ends with each file, without a word of TLS, which apt takes for a file cut short.
    protocol_version = "HTTP/1.1"
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), functools.partial(Handler, directory=folder))
if tls:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*tls)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
END
    servers+=($!)
    local try
    for ((try = 0; try < 100; try++)); do
        ! (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null || return 0
        sleep 0.1
    done
    echo "no server on port $2: $(tail -n 3 "$work/server.log")" >&2
    return 1
}
