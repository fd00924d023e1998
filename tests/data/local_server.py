"""A server on this machine that does what servers do, and worse."""

import io
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def zipped(members, method=zipfile.ZIP_STORED):
    """A zip file of these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


class Server(ThreadingHTTPServer):
    """Answers with what stands in `answers`: bytes, or a function of the handler."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = {}
        self.requests = []
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def serving(self):
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield self
        self.over.set()
        self.shutdown()
        thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.requests.append(self.path)
        answer = self.server.answers.get(self.path, failing(404))
        if callable(answer):
            answer(self)
        else:
            send(self, answer, len(answer))

    def log_message(self, *arguments):
        pass


def send(handler, content, stated):
    handler.send_response(200)
    handler.send_header("Content-Length", str(stated))
    handler.end_headers()
    handler.wfile.write(content)


def failing(status):
    return lambda handler: handler.send_error(status)


def cut_off(content):
    """The whole length is stated, and half of it sent."""
    return lambda handler: send(handler, content[: len(content) // 2], len(content))


def chunk_cut_off(handler):
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"100\r\nhalf of it")
    handler.close_connection = True


def silent(handler):
    handler.server.over.wait(2)


def closing(handler):
    handler.close_connection = True


def shouting(handler):
    handler.send_response(403, "go\x1b[31m away")
    handler.end_headers()
