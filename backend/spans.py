"""Spans (OpenTelemetry): how long a request took, a step of an operation, a command. Off unless a collector is set.

Then, and only then, ``backend.otel`` is imported; else a span costs a look at a variable. Each process sends its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from datetime import datetime
from typing import Protocol

Value = str | int | float | bool
Attributes = Mapping[str, Value]


class Span(Protocol):
    """One that has begun."""

    def note(self, attributes: Attributes, *, name: str | None = None, has_failed: bool = False) -> None:
        """Adds what is known only now."""


class Tracing(Protocol):
    """What makes spans and sends them."""

    def span(self, name: str, attributes: Attributes, *, is_request: bool) -> AbstractContextManager[Span]:
        """One around what is done within."""

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

    def close(self) -> None:
        """Sends what waits, for a moment."""


class _Nothing:
    def note(self, attributes: Attributes, *, name: str | None = None, has_failed: bool = False) -> None:
        """Nobody wants to know."""


_tracing: ContextVar[Tracing | None] = ContextVar("tracing", default=None)
nothing = nullcontext(_Nothing())


@contextmanager
def sending_spans(endpoint: str | None, *, sample_pct: float = 100.0) -> Iterator[None]:
    """Has spans made and sent from here on, where there is an endpoint; at the end the last of them are sent."""
    if endpoint is None:
        yield
        return
    from backend.otel import OtelTracing

    with tracing_by(OtelTracing(endpoint, sample_pct=sample_pct)):
        yield


@contextmanager
def tracing_by(tracing: Tracing) -> Iterator[None]:
    """Has spans made by this, in this context and in whatever is begun from it."""
    token = _tracing.set(tracing)
    try:
        yield
    finally:
        _tracing.reset(token)
        tracing.close()


def span(name: str, attributes: Attributes, *, is_request: bool = False) -> AbstractContextManager[Span]:
    """A span around what is done within. No attribute may hold what opens a seat, or says who somebody is."""
    tracing = _tracing.get()
    return tracing.span(name, attributes, is_request=is_request) if tracing else nothing


def record_span(
    name: str,
    attributes: Attributes,
    *,
    began_at: datetime,
    ended_at: datetime,
    request_id: str = "",
    has_failed: bool = False,
) -> None:
    """A span of something that is over, and that no single piece of code stood around."""
    if tracing := _tracing.get():
        tracing.record(
            name, attributes, began_at=began_at, ended_at=ended_at, request_id=request_id, has_failed=has_failed
        )
