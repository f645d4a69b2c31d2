"""A web server on this machine that misbehaves as it is told."""

import re
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Web:
    """What is served (path -> bytes) and how: every fault is counted down as it is shown."""

    def __init__(self):
        self.files = {}
        self.ranges = True
        self.drops = Counter()  # path -> how many answers end after `drop_after` bytes
        self.drop_after = 1000
        self.busy = Counter()  # path -> how many answers are 503
        self.status = {}  # path -> always this status
        self.length = True  # say Content-Length
        self.wrong_start = False  # answer ranges from another place than asked
        self.asked = []  # (path, Range header or "")
        self.sent = Counter()  # path -> bytes sent
        self.url = ""


def handler_of(web):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            wanted = self.headers.get("Range", "")
            web.asked.append((self.path, wanted))
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
            self.answer(web.files[self.path], wanted)
            return None

        def answer(self, content, wanted):
            start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted and web.ranges else 0
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
            self.wfile.write(body)
            web.sent[self.path] += len(body)
            self.close_connection = True
            return None

    return Handler


@contextmanager
def serving(web):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(web))
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    web.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
