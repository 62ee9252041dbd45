"""AWS on a bad day: a proxy on loopback before the local AWS that answers what it is told with AWS's own errors."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

from tests.harness.local_aws import LocalAws

# The statuses that AWS answers with (docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html); else 400.
_STATUSES = {"InsufficientInstanceCapacity": 500, "RequestLimitExceeded": 503, "UnauthorizedOperation": 403}
_QUERY_ERROR = "<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
_FORMS = {
    "ec2": "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
    "<RequestID>0</RequestID></Response>",
    "s3": "<Error><Code>{code}</Code><Message>{message}</Message></Error>",
}
_SCOPE = re.compile(r"Credential=([^/]+)/\d+/[^/]+/([^/]+)/")


@dataclass(frozen=True, slots=True)
class Call:
    """One request: its service and action (of S3: the method), its parameters, and whose key signed it."""

    service: str
    action: str
    parameters: dict[str, str]
    key: str
    at: float = field(default_factory=time.monotonic)


@dataclass
class Fault:
    """What is done to the calls that ``hits``, ``times`` in all and not to the first ``after``: they are refused with
    ``code``, or held until it is mended.
    """

    hits: Callable[[Call], bool]
    code: str | None
    message: str = ""
    times: float = float("inf")
    after: int = 0
    mended: threading.Event = field(default_factory=threading.Event)

    def takes(self, call: Call) -> bool:
        """Whether this call is one of those."""
        if not self.hits(call) or self.times <= 0:
            return False
        self.after -= 1
        self.times -= self.after < 0
        return self.after < 0


class FaultyAws:
    """The proxy. ``calls`` are all that came in; ``faults`` are asked in their order."""

    def __init__(self, aws: LocalAws) -> None:
        self.aws, self.calls, self.faults = aws, list[Call](), list[Fault]()
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body in one: clients on a machine that is busy lose the body of an answer that comes too soon.
            wbufsize = -1

            def do_GET(self) -> None:
                proxy._serve(self)

            do_POST = do_PUT = do_HEAD = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings of a server that meets AWS through here."""
        return tuple(each.replace(self.aws.url, self.url) for each in self.aws.settings)

    def close(self) -> None:
        """Ends it."""
        self.mend()
        self._http.shutdown()
        self._http.server_close()

    def fail(
        self,
        action: str,
        code: str,
        message: str = "said by the test",
        *,
        times: float = float("inf"),
        after: int = 0,
        **where: str,
    ) -> Fault:
        """Has this action refused where its parameters hold these (``SubnetId=…``)."""
        return self._add(Fault(_is(action, where), code, message, times, after))

    def fail_key(self, key: str, code: str, message: str = "said by the test") -> Fault:
        """Has everything refused that is signed with this access key."""
        return self._add(Fault(lambda call: call.key == key, code, message))

    def hold(self, action: str, **where: str) -> Fault:
        """Lets nobody know the answer before ``mend``; what was asked for is done all the same."""
        return self._add(Fault(_is(action, where), None))

    def of(self, action: str) -> list[Call]:
        """The calls of one action so far."""
        return [each for each in list(self.calls) if each.action == action]

    def mend(self) -> None:
        """The bad day is over."""
        for fault in self.faults:
            fault.mended.set()
        self.faults.clear()

    def _add(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        call = _call(handler, body)
        with self._lock:
            self.calls.append(call)
            fault = next((each for each in list(self.faults) if each.takes(call)), None)
        if fault is not None and fault.code is not None:
            form = _FORMS.get(call.service, f"<ErrorResponse>{_QUERY_ERROR}<RequestId>0</RequestId></ErrorResponse>")
            said = form.format(code=fault.code, message=fault.message).encode()
            self._write(handler, _STATUSES.get(fault.code, 400), [("Content-Type", "text/xml")], said)
            return
        self._forward(handler, body, fault)

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes, held: Fault | None) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.aws.port, timeout=60)
        connection.request(handler.command, handler.path, body, dict(handler.headers.items()))
        answer = connection.getresponse()
        kept = [each for each in answer.getheaders() if each[0].lower() not in _HOP_BY_HOP]
        said = answer.read()
        if held is not None:
            held.mended.wait()
        self._write(handler, answer.status, kept, said, length=answer.getheader("Content-Length"))
        connection.close()

    def _write(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        headers: list[tuple[str, str]],
        body: bytes,
        *,
        length: str | None = None,
    ) -> None:
        is_head = handler.command == "HEAD"
        try:
            handler.send_response_only(status)
            for name, value in [*headers, ("Content-Length", length if is_head and length else str(len(body)))]:
                handler.send_header(name, value)
            handler.end_headers()
            if not is_head:
                handler.wfile.write(body)
        except OSError:
            handler.close_connection = True


_HOP_BY_HOP = {"connection", "content-length", "transfer-encoding"}


def _is(action: str, where: dict[str, str]) -> Callable[[Call], bool]:
    return lambda call: call.action == action and where.items() <= call.parameters.items()


def _call(handler: BaseHTTPRequestHandler, body: bytes) -> Call:
    scope = _SCOPE.search(handler.headers.get("Authorization", ""))
    key, service = scope.groups() if scope else ("", "")
    form = "application/x-www-form-urlencoded" in handler.headers.get("Content-Type", "")
    parameters = dict(parse_qsl(body.decode())) if form else {"path": handler.path}
    return Call(service, parameters.get("Action", handler.command), parameters, key)
