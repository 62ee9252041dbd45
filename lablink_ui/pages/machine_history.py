"""A machine's figures over an hour, a day or a month, with what happened to it marked on them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import partial

from backend.services.events import EventFilter, list_events
from backend.services.history import HOUR, SPANS, Span, list_samples
from backend.services.views import SampleView, VmView
from lablink_ui.components import Chart, Mark
from lablink_ui.parts import button, tag
from lablink_ui.visits import Reader, Visit

MOST_MARKS = 200
MACHINE = [("cpu_pct", "CPU", "one"), ("memory_pct", "Memory", "two"), ("disk_free_pct", "Disk free", "three")]
GPU = [("gpu_pct", "Busy", "four"), ("gpu_memory_pct", "Memory", "two")]
TEMPERATURE = [("gpu_temperature_c", "Hottest", "one")]


class MachineHistory:
    """The section of charts."""

    def __init__(self, visit: Visit, vm: VmView) -> None:
        self._db, self._vm_id = visit.house.db, vm.id
        self._span, self._read_at = HOUR, 0.0
        with tag("section", "card pad", aria_label="Health over time"):
            with tag("div", "row"):
                tag("h2", "", "Health over time")
                with tag("div", "filters push", role="group", aria_label="How far back"):
                    self._buttons = {
                        span: button(span.words, partial(self._choose, span), testid=f"history-{span.name}")
                        for span in SPANS
                    }
            self._machine = Chart("Machine", MACHINE)
            self._gpus = [Chart("GPU", GPU), Chart("GPU temperature", TEMPERATURE, unit="°C")]
        self._press()
        self._reader = Reader(self._read)

    def ask(self, *, now: bool = False) -> None:
        """Asks for a fresh picture; unless ``now``, no more often than there is something new to see."""
        if now or time.monotonic() - self._read_at >= min(self._span.every_s, 60) - 1:
            self._reader.ask()

    def _choose(self, span: Span) -> None:
        self._span = span
        self._press()
        self.ask(now=True)

    def _press(self) -> None:
        for span, element in self._buttons.items():
            element.props["aria-pressed"] = "true" if span is self._span else "false"
            element.update()

    async def _read(self) -> None:
        span, self._read_at = self._span, time.monotonic()
        until = self._db.now()
        since = until - timedelta(seconds=span.length_s)
        samples = await list_samples(self._db, self._vm_id, span)
        wanted = EventFilter(vm_id=self._vm_id, since=since)
        events = await list_events(self._db, wanted, limit=MOST_MARKS)
        if span is not self._span:
            return
        marks = [Mark(event.at, event.message) for event in events]
        has_gpu = any(sample.gpu_pct is not None or sample.gpu_temperature_c is not None for sample in samples)
        for chart in (self._machine, *self._gpus):
            chart.reset(_points(samples), marks=marks, since=since, until=until, every_s=span.every_s)
        for chart in self._gpus:
            chart.set_visibility(has_gpu)


def _points(samples: Sequence[SampleView]) -> list[dict[str, object]]:
    """Rounded: what is drawn two pixels high needs no more, and half as much is sent."""
    return [
        {key: round(value, 1) if isinstance(value, float) else value for key, value in asdict(sample).items()}
        | {"at": sample.at.isoformat()}
        for sample in samples
    ]
