"""A server that speaks the agent's wire as far as a test needs it: real HTTP on loopback, in a thread."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

ENROLMENT_TOKEN = "enrolment-token-of-this-machine"


@dataclass(frozen=True)
class Request:
    """One request that came in."""

    method: str
    path: str
    token: str
    body: dict[str, Any]
    request_id: str | None = None
    at: float = field(default_factory=time.monotonic)


@dataclass
class Fault:
    """An answer instead of the true one. ``acts``: what was asked is done all the same; only the answer is lost."""

    status: int
    times: int = 1
    acts: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"error": {"code": "fault", "message": "a fault of the test"}}'


class TinyServer:
    """Issues tokens, hands out commands until they have a result, and keeps every request."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.agent_tokens: list[str] = []
        self.commands: dict[int, dict[str, Any]] = {}
        self.faults: dict[str, Fault] = {}
        self.files: dict[str, bytes] = {}
        self.preparation: dict[str, str | None] = {"repository": None, "startup_script": None}
        self._issued = 0
        self._news = threading.Condition()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server._serve(self)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def command(self, command_id: int, kind: str, **payload: Any) -> None:
        """Queues a command; a poll that waits hears of it."""
        with self._news:
            self.commands[command_id] = {"id": command_id, "kind": kind, "payload": payload}
            self._news.notify_all()

    def of(self, path: str, method: str = "POST") -> list[Request]:
        """The requests to one path so far."""
        return [each for each in list(self.requests) if each.path == path and each.method == method]

    def beats(self) -> list[dict[str, Any]]:
        """The heartbeats so far."""
        return [each.body for each in self.of("/api/heartbeat")]

    def results(self, command_id: int) -> list[dict[str, Any]]:
        """The results told of one command so far."""
        return [each.body for each in self.of(f"/api/commands/{command_id}")]

    def steps(self) -> list[dict[str, Any]]:
        """The steps of boots told so far."""
        return [each.body for each in self.of("/api/boot_steps")]

    def logs(self) -> dict[str, list[str]]:
        """The lines shipped so far, by source."""
        lines: dict[str, list[str]] = defaultdict(list)
        for each in self.of("/api/logs"):
            lines[each.body["source"]] += each.body["lines"]
        return lines

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        length = int(handler.headers.get("Content-Length") or 0)
        body = json.loads(handler.rfile.read(length)) if length else {}
        token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        request = Request(handler.command, url.path, token, body, handler.headers.get("X-Request-ID"))
        self.requests.append(request)
        if url.path in self.files:
            self._write(handler, 200, self.files[url.path], {"Content-Type": "text/html"})
            return
        fault = self.faults.get(url.path)
        if fault is not None and fault.times > 0:
            fault.times -= 1
            if fault.acts:
                self._answer(request, url.query)
            self._write(handler, fault.status, fault.body, fault.headers)
            return
        status, answer = self._answer(request, url.query)
        self._write(handler, status, json.dumps(answer).encode(), {})

    def _write(self, handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
        try:
            handler.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)
        except OSError:
            handler.close_connection = True

    def _answer(self, request: Request, query: str) -> tuple[int, dict[str, Any]]:
        if request.path == "/api/vm_startup" and request.token == ENROLMENT_TOKEN:
            self._issued += 1
            self.agent_tokens = [f"agent-token-number-{self._issued}"]
            return 200, {"agent_token": self.agent_tokens[0], "heartbeat_interval_s": 0.2}
        if request.path == "/api/boot_steps" and request.token == ENROLMENT_TOKEN:
            return 200, {}
        if request.token not in self.agent_tokens:
            return 401, {"error": {"code": "unauthenticated", "message": "This token is unknown."}}
        if request.path == "/api/vm_startup":
            return 200, {"heartbeat_interval_s": 0.2}
        if request.path == "/api/preparation":
            return 200, self.preparation
        if request.path == "/api/commands":
            with self._news:
                self._news.wait_for(lambda: self.commands, timeout=float(parse_qs(query)["wait"][0]))
                return 200, {"commands": list(self.commands.values())}
        if request.path.startswith("/api/commands/") and request.body.get("status") != "running":
            self.commands.pop(int(request.path.rpartition("/")[2]), None)
        return 200, {}
