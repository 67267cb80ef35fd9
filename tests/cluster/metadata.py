"""The metadata service of EC2 instances (IMDSv2), as far as notices and credentials go.

    python metadata.py PORT FOLDER

A file in FOLDER, such as ``spot/instance-action``, is what is answered at that path, and a folder is listed.
"""

import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN = "of-this-session"


def serve(port: int, folder: Path, listening: socket.socket | None = None) -> ThreadingHTTPServer:
    """Return a server that answers as AWS does: a token first, then what there is.

    Args:
        port: on this machine, for one instance.
        folder: of that instance.
        listening: instead, where many instances ask; each has a folder in ``folder``, named after its address.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            is_right = self.path == "/latest/api/token" and "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
            self.answer(200 if is_right else 400, TOKEN)

        def do_GET(self) -> None:
            own = folder if listening is None else folder / self.client_address[0]
            file = own / self.path.removeprefix("/latest/meta-data/").strip("/")
            if self.headers.get("X-aws-ec2-metadata-token") != TOKEN:
                self.answer(401, "")
            elif file.is_file():
                self.answer(200, file.read_text())
            elif file.is_dir():
                self.answer(200, "\n".join(sorted(entry.name for entry in file.iterdir())))
            else:
                self.answer(404, "")

        def answer(self, code: int, text: str) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    if listening is None:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server = ThreadingHTTPServer(listening.getsockname(), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    return server


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2])).serve_forever()
