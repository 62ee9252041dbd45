"""Spans by OpenTelemetry's SDK, sent by OTLP over HTTP from a thread of its own.

The provider is never made the global one: FastAPI would add spans of its own then, with whole paths in them, and some
paths of ours open a seat. What belongs to one request has one trace, in whatever process and however much later it is
done: the trace's id follows from the request's.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from importlib.metadata import version

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode

from backend.request_ids import find_request_id
from backend.spans import Attributes

# A collector that does not answer must not keep a server from ending.
ANSWER_S = 3
REQUEST_ID = "lablink.request_id"

_request_id: ContextVar[str] = ContextVar("request_id_of_span", default="")


class _Ids(RandomIdGenerator):
    """Hashed, since neither the ids that proxies give nor UUIDs are even enough to sample by."""

    def generate_trace_id(self) -> int:
        request_id = _request_id.get()
        if not request_id:
            return super().generate_trace_id()
        return int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:16], "big")


class _Begun:
    def __init__(self, span: Span) -> None:
        self._span = span

    def note(self, attributes: Attributes, *, name: str | None = None, has_failed: bool = False) -> None:
        self._span.set_attributes(attributes)
        if name is not None:
            self._span.update_name(name)
        if has_failed:
            self._span.set_status(StatusCode.ERROR)


class OtelTracing:
    """Sends to ``endpoint``, the address of a collector without its path, so many percent of all traces."""

    def __init__(self, endpoint: str, *, sample_pct: float) -> None:
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample_pct / 100)),
            resource=Resource.create({"service.name": "lablink", "service.version": version("lablink")}),
            id_generator=_Ids(),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=ANSWER_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("lablink", version("lablink"))

    @contextmanager
    def span(self, name: str, attributes: Attributes, *, is_request: bool) -> Iterator[_Begun]:
        """One around what is done within; of an error only its kind is told, for its words may hold anything."""
        kind = SpanKind.SERVER if is_request else SpanKind.INTERNAL
        with (
            _about(find_request_id() or "") as about,
            self._tracer.start_as_current_span(
                name,
                kind=kind,
                attributes={**attributes, **about},
                record_exception=False,
                set_status_on_exception=False,
            ) as begun,
        ):
            try:
                yield _Begun(begun)
            except BaseException as exc:
                begun.set_attribute("error.type", type(exc).__name__)
                begun.set_status(StatusCode.ERROR)
                raise

    def record(
        self,
        name: str,
        attributes: Attributes,
        *,
        began_at: datetime,
        ended_at: datetime,
        request_id: str,
        has_failed: bool,
    ) -> None:
        """One that is over."""
        with _about(request_id) as about:
            # Of no span that is under way now: it may have begun before that.
            begun = self._tracer.start_span(
                name, context=Context(), attributes={**attributes, **about}, start_time=_ns(began_at)
            )
        _Begun(begun).note({}, has_failed=has_failed)
        begun.end(_ns(ended_at))

    def close(self) -> None:
        """Sends what waits; a collector that does not answer is given up soon."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(ANSWER_S)


@contextmanager
def _about(request_id: str) -> Iterator[Attributes]:
    token = _request_id.set(request_id)
    try:
        yield {REQUEST_ID: request_id} if request_id else {}
    finally:
        _request_id.reset(token)


def _ns(at: datetime) -> int:
    return int(at.timestamp() * 1e9)
