#!/usr/bin/python3
"""A small API server for the namespace tests: api.py NAME CERTIFICATE KEY

TLS on 6443. `list NAME=ADDRESS...` makes it name the cluster's control planes; `list` alone takes the list away. /readyz answers with the status that standard input sets (200 at first), every other path with
200, and all with the server's name. `slow SECONDS` delays every answer. The end of standard input is its end."""
import http.server
import json
import ssl
import sys
import threading
import time

name, certificate, key = sys.argv[1:]
ready = 200
slow = 0
named = None
LIST = "/api/v1/namespaces/kube-public/configmaps/kindling-endpoints"
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_GET(self):
        body = name.encode()
        status = 200
        time.sleep(slow)
        if self.path == "/readyz":
            status = ready
        elif self.path == LIST and named is None:
            status = 404
        elif self.path == LIST:
            body = json.dumps({"data": named}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def finish_request(self, request, client_address):
        # In the connection's own thread: a client that is slow to shake hands holds up nobody else.
        with context.wrap_socket(request, server_side=True) as tls:
            super().finish_request(tls, client_address)

    def handle_error(self, request, client_address):
        pass


threading.Thread(target=Server(("", 6443), Handler).serve_forever, daemon=True).start()
for line in sys.stdin:
    if line.startswith("slow "):
        slow = float(line.split()[1])
    elif line.startswith("list"):
        named = dict(word.split("=") for word in line.split()[1:]) or None
    else:
        ready = int(line)
