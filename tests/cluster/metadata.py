"""The metadata service of an EC2 instance (IMDSv2), as far as notices go: `python metadata.py PORT FOLDER`.

A file in FOLDER, such as ``spot/instance-action``, is what is answered at that path.
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN = "of-this-session"


def serve(port: int, folder: Path) -> ThreadingHTTPServer:
    """Return a server that answers as AWS does: a token first, then what there is."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            is_right = self.path == "/latest/api/token" and "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
            self.answer(200 if is_right else 400, TOKEN)

        def do_GET(self) -> None:
            file = folder / self.path.removeprefix("/latest/meta-data/")
            if self.headers.get("X-aws-ec2-metadata-token") != TOKEN:
                self.answer(401, "")
            elif file.is_file():
                self.answer(200, file.read_text())
            else:
                self.answer(404, "")

        def answer(self, code: int, text: str) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2])).serve_forever()
