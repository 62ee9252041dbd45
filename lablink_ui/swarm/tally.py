"""What a swarm saw, counted: samples, errors, who sat where and when, and the verdict."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from lablink_ui.bench.loadgen import percentile

VERSION = 1
PERCENTS = (50, 95, 99)
# Of each kind of error so many are kept word by word.
SHOWN_ERRORS = 5


@dataclass(slots=True)
class Sitting:
    """Somebody at a machine, from a moment on until another, if it has ended; seconds of the monotonic clock."""

    email: str
    from_s: float
    until_s: float = float("inf")


@dataclass(slots=True)
class Tally:
    """All that was told. ``samples`` holds moments and milliseconds."""

    samples: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    said: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    sittings: dict[str, list[Sitting]] = field(default_factory=lambda: defaultdict(list))
    seen: dict[str, tuple[str, str]] = field(default_factory=dict)
    reached: Counter[str] = field(default_factory=Counter)
    late_ms: float = 0.0
    server_lag_s: list[tuple[float, float]] = field(default_factory=list)
    series: list[dict[str, float]] = field(default_factory=list)

    def take(self, line: bytes) -> None:
        """One line of a worker."""
        at, what, *rest = json.loads(line)
        if what == "took":
            self.samples[rest[0]].append((at, rest[1]))
        elif what == "count":
            self.counts[rest[0]] += rest[1]
        elif what == "failed":
            self.fail(rest[0], rest[1])
        elif what == "sat":
            self.sittings[rest[1]].append(Sitting(rest[0], at))
        elif what == "left":
            self._end_sitting(rest[0], rest[1], at)
        elif what == "sees":
            self.seen[rest[0]] = (rest[1], rest[2])
        elif what == "late":
            self.late_ms = max(self.late_ms, rest[0])
        elif what == "reached":
            self.reached[rest[0]] += 1

    def fail(self, kind: str, detail: str) -> None:
        """Something went wrong."""
        self.errors[kind] += 1
        if len(self.said[kind]) < SHOWN_ERRORS:
            self.said[kind].append(detail)

    @property
    def seated(self) -> int:
        """How many people were shown a machine as theirs."""
        return len({each.email for sittings in self.sittings.values() for each in sittings})

    @property
    def refused_429(self) -> int:
        """How often anybody was told to come later because of too many tries."""
        return sum(number for kind, number in self.errors.items() if kind.endswith(" 429"))

    def values(self, what: str, since_s: float = 0.0) -> list[float]:
        """The samples of something, in milliseconds."""
        return [value for at, value in self.samples.get(what, ()) if at >= since_s]

    def summary(self, what: str) -> dict[str, float | None]:
        """Its percentiles in milliseconds; null where nothing was measured."""
        values = self.values(what)
        return {f"p{percent}": percentile(values, percent) if values else None for percent in PERCENTS}

    def find_doubles(self, instances: Sequence[Mapping[str, Any]]) -> list[str]:
        """Whoever was given what another one had, by what people were shown and by what the server says at the end."""
        doubles = []
        for hostname, sittings in self.sittings.items():
            ordered = sorted(sittings, key=lambda each: each.from_s)
            for one, other in pairwise(ordered):
                if one.until_s > other.from_s and one.email != other.email:
                    doubles.append(f"{hostname} was shown to {one.email} and to {other.email} at once")
        owners = {str(each["hostname"]): each["email"] for each in instances if each["status"] == "in-use"}
        for email, number in Counter(filter(None, owners.values())).items():
            if number > 1:
                doubles.append(f"{email} holds {number} machines")
        for email, (_, hostname) in self.seen.items():
            if hostname and owners.get(hostname) != email:
                doubles.append(f"{email} is shown {hostname}, which the server says is {owners.get(hostname)}'s")
        return doubles

    def _end_sitting(self, email: str, hostname: str, at: float) -> None:
        for each in self.sittings[hostname]:
            if each.email == email and each.until_s == float("inf"):
                each.until_s = at
