"""A local web server, for tests of downloads."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        """Log nothing."""


def serve(folder: Path, handler: type = QuietHandler) -> ThreadingHTTPServer:
    """Serve the files of a folder until the server is shut down."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server
