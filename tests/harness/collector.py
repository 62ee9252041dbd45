"""A collector of spans on loopback: takes OTLP over HTTP as a real one does, and keeps what it is sent."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """``bodies``: what was posted, as it came."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces":
                    collector.bodies.append(body)
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Takes nothing more."""
        self._http.shutdown()
        self._http.server_close()

    def spans(self) -> list[dict[str, Any]]:
        """All so far: ``name``, ``trace``, ``parent`` (empty for one that has none), ``took_s``, and the attributes."""
        found = []
        for body in list(self.bodies):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    found += [_plain(span) for span in scope.spans]
        return found


def _plain(span: Any) -> dict[str, Any]:
    return {
        "name": span.name,
        "trace": span.trace_id,
        "id": span.span_id,
        "parent": span.parent_span_id,
        "has_failed": span.status.code == 2,
        "took_s": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        **{each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes},
    }
