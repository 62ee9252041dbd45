"""An imitation of EC2's instance metadata service (version 2) as far as spot notices go, on loopback.

As docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html has it: without a token, asked
for with PUT, nothing is told.
"""

from __future__ import annotations

import json
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "a-token-of-the-imitated-metadata-service"


class ImitationImds:
    """Knows of no interruption until ``interrupt``."""

    def __init__(self) -> None:
        self._ends_at: datetime | None = None
        self.refused = 0
        imds = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                is_asked_well = self.path == "/latest/api/token" and self.headers.get(
                    "X-aws-ec2-metadata-token-ttl-seconds"
                )
                self._answer(*((200, TOKEN) if is_asked_well else (400, "")))

            def do_GET(self) -> None:
                self._answer(*imds._tell(self.path, self.headers.get("X-aws-ec2-metadata-token")))

            def _answer(self, status: int, body: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def interrupt(self, ends_at: datetime) -> None:
        """From now on the machine is told that it ends then."""
        self._ends_at = ends_at

    def withdraw(self) -> None:
        """The notice is gone."""
        self._ends_at = None

    def close(self) -> None:
        """Ends it."""
        self._http.shutdown()
        self._http.server_close()

    def _tell(self, path: str, token: str | None) -> tuple[int, str]:
        if token != TOKEN:
            self.refused += 1
            return 401, ""
        if path != "/latest/meta-data/spot/instance-action" or self._ends_at is None:
            return 404, ""
        return 200, json.dumps({"action": "terminate", "time": f"{self._ends_at:%Y-%m-%dT%H:%M:%SZ}"})
