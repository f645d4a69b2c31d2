"""A local web server with configurable faults."""

import re
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Web:
    """The served files (path -> bytes) and the faults of the server; counters of faults decrease with each fault."""

    def __init__(self):
        self.files = {}
        self.ranges = True
        self.drops = Counter()  # path -> number of responses that end after `drop_after` bytes
        self.drop_after = 1000
        self.busy = Counter()  # path -> number of responses with status 503
        self.status = {}  # path -> status of all responses
        self.length = True  # send Content-Length
        self.wrong_start = False  # send ranges from another position than requested
        self.requests = []  # (path, Range header or "")
        self.sent = Counter()  # path -> bytes sent
        self.url = ""


def make_handler(web):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            range_header = self.headers.get("Range", "")
            web.requests.append((self.path, range_header))
            if self.path in web.status:
                return self.send_error(web.status[self.path])
            if web.busy[self.path] > 0:
                web.busy[self.path] -= 1
                self.send_response(503)
                self.send_header("Retry-After", "0")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            if self.path not in web.files:
                return self.send_error(404)
            self.respond(web.files[self.path], range_header)
            return None

        def respond(self, content, range_header):
            start = int(re.match(r"bytes=(\d+)-", range_header)[1]) if range_header and web.ranges else 0
            if start and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            if start and web.wrong_start:
                start -= 1
            body = content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if web.length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if web.drops[self.path] > 0:
                web.drops[self.path] -= 1
                body = body[: web.drop_after]
            web.sent[self.path] += len(body)  # first: the client may be done before this thread goes on
            self.wfile.write(body)
            self.close_connection = True
            return None

    return Handler


@contextmanager
def serve(web):
    server = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(web))
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    web.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
