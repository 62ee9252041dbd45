"""What a swarm does: a YAML file, strictly read, and the plan that follows from it and a seed."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

MAX_AGENTS, MAX_PEOPLE, MAX_ADMIN_PAGES, MAX_S = 20_000, 20_000, 1_000, 86_400.0
MAX_POOLS = 50
DOMAIN = "swarm.example"
_UNITS_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3_600.0}
_NUMBER = r"(\d{1,7}(?:\.\d{1,3})?)"
_DURATION = re.compile(_NUMBER + r" ?(ms|s|min|h)")
_RANGE = re.compile(_NUMBER + r" ?(ms|s|min|h)? to " + _NUMBER + r" ?(ms|s|min|h)")
_ARRIVALS = re.compile(r"(\d{1,6}) in (.+)")
_SHARE = re.compile(_NUMBER + r" ?%")
_POOL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class WrongScenario(Exception):
    """A scenario cannot be used. The message is one line that names the key and says what is allowed."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """So many people within so many seconds."""

    people: int
    within_s: float

    def __str__(self) -> str:
        return f"{self.people} in {self.within_s:g} s"


@dataclass(frozen=True, slots=True)
class Span:
    """Between two durations, in seconds."""

    low_s: float
    high_s: float

    def draw(self, luck: random.Random) -> float:
        """One of them."""
        return luck.uniform(self.low_s, self.high_s)

    def __str__(self) -> str:
        return f"{self.low_s:g} s to {self.high_s:g} s"


class _Wrong(Exception):
    """A value is none of those that are allowed."""


def _whole(most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise _Wrong
        return value

    return read


def _duration(value: object) -> float:
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise _Wrong
    return _seconds(found[1], found[2])


def _span(value: object) -> Span:
    found = _RANGE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise _Wrong
    low_s, high_s = _seconds(found[1], found[2] or found[4]), _seconds(found[3], found[4])
    if low_s > high_s:
        raise _Wrong
    return Span(low_s, high_s)


def _arrivals(value: object) -> Arrivals:
    found = _ARRIVALS.fullmatch(value) if isinstance(value, str) else None
    if found is None or int(found[1]) > MAX_PEOPLE:
        raise _Wrong
    return Arrivals(int(found[1]), _duration(found[2]))


def _share(value: object) -> float:
    found = _SHARE.fullmatch(value) if isinstance(value, str) else None
    if found is None or float(found[1]) > 100:
        raise _Wrong
    return float(found[1]) / 100


def _yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise _Wrong
    return value


def _pools(value: object) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [value]
    if not 1 <= len(names) <= MAX_POOLS or not all(isinstance(each, str) and _POOL.fullmatch(each) for each in names):
        raise _Wrong
    return tuple(dict.fromkeys(names))


def _seconds(number: str, unit: str) -> float:
    seconds = round(float(number) * _UNITS_S[unit], 6)
    if seconds > MAX_S or not math.isfinite(seconds):
        raise _Wrong
    return seconds


_POOLS_ALLOWED = "a pool's name, or a list of at most 50,"
_ARRIVALS_ALLOWED = f"PEOPLE in DURATION, such as 450 in 8 min, at most {MAX_PEOPLE:,} people,"


def _key(default: object, read: Callable[[object], Any], allowed: str, text: str) -> Any:
    """A key; ``default`` as a file would give it."""
    return field(default=read(default), metadata={"read": read, "allowed": allowed, "text": text, "default": default})


def _count(default: int, most: int, text: str) -> Any:
    return _key(default, _whole(most), f"a whole number from 0 to {most:,}", text)


def _time(default: str, text: str) -> Any:
    return _key(default, _duration, "a duration such as 500 ms, 30 s, 8 min or 1 h, at most 24 h", text)


def _between(default: str, text: str) -> Any:
    return _key(default, _span, "two durations such as 1 to 10 s, at most 24 h, the lower one first", text)


def _some(default: str, text: str) -> Any:
    return _key(default, _share, "a share from 0 % to 100 %, such as 10 %", text)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario. Each key stands here with its default, what is allowed, and what it means."""

    pool: tuple[str, ...] = _key(
        "default", _pools, _POOLS_ALLOWED, "where machines and people go, in turn; open to all"
    )
    agents: int = _count(50, MAX_AGENTS, "machines that enrol, beat and obey; they leave at the end")
    arrivals: Arrivals = _key("40 in 1 min", _arrivals, _ARRIVALS_ALLOWED, "who comes, drawn evenly over that time")
    admin_pages: int = _count(2, MAX_ADMIN_PAGES, "pages of the console that stay open")
    stay: float = _time("30 s", "for how long all goes on after the last arrival")
    hesitate: Span = _between("1 to 8 s", "from the page to the click; the e-mail is typed meanwhile")
    double_clicks: float = _some("10 %", "who clicks twice")
    reloads: float = _some("20 %", "who reloads the seat's page")
    returns: float = _some("15 %", "who closes the page and comes back")
    away: Span = _between("1 to 10 s", "for how long those are away")
    wifi_losses: float = _some("10 %", "who loses the Wi-Fi with the page open")
    wifi_off: Span = _between("1 to 15 s", "for how long those have no network")
    gives_back: float = _some("10 %", "who gives the seat back and leaves")
    files: bool = _key(True, _yes_or_no, "true or false", "whether first visits fetch scripts, styles and fonts too")
    work: Span = _between("100 ms to 1 s", "how long a machine takes for a command")
    patience: float = _time("30 s", "what takes longer (an answer, a page, a machine) counts as an error")

    @property
    def lasts_s(self) -> float:
        """From the first possible arrival until everybody is asked what they see, in seconds."""
        return self.arrivals.within_s + self.stay

    def as_json(self) -> dict[str, Any]:
        """Its values, as a report shows them."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        plain = {key: str(value) if isinstance(value, Arrivals | Span) else value for key, value in values.items()}
        return plain | {"pool": list(self.pool)}


@dataclass(frozen=True, slots=True)
class Mishap:
    """What befalls somebody who sits. ``kind``: reload, return, wifi; ``at``: a share of the time that is left."""

    kind: str
    at: float
    for_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Person:
    """What somebody will do, drawn before. ``gives_back_at`` is a share of the time that is left once they sit."""

    email: str
    pool: str
    arrives_s: float
    hesitates_s: float
    clicks: int
    mishaps: tuple[Mishap, ...]
    gives_back_at: float | None


def read_text(file: Path) -> str:
    """The text of a scenario.

    Raises:
        WrongScenario: the file cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise WrongScenario(f"{file} cannot be read: {getattr(exc, 'strerror', None) or exc}") from None


def parse_scenario(text: str) -> Scenario:
    """A scenario from its text.

    Raises:
        WrongScenario: it is no YAML, or a key or a value in it is not allowed.
    """
    # A VM, which has no YAML, must be able to list the command's help.
    import yaml  # type: ignore[import-untyped]

    try:
        found, node = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        mark = getattr(exc, "problem_mark", None)
        raise WrongScenario(f"this is no YAML{f' (line {mark.line + 1})' if mark else ''}") from None
    if found is None:
        return Scenario()
    if not isinstance(found, Mapping):
        raise WrongScenario(f"a scenario is a list of 'key: value'; the keys are {', '.join(_keys())}")
    twice = [key for key, number in Counter(str(key.value) for key, _ in node.value).items() if number > 1]
    if twice:
        raise WrongScenario(f"{twice[0][:60]!r} stands there twice; a key stands there once")
    keys = _keys()
    values = {}
    for key, value in found.items():
        if key not in keys:
            raise WrongScenario(f"{str(key)[:60]!r} is no key; the keys are {', '.join(keys)}")
        try:
            values[key] = keys[key]["read"](value)
        except _Wrong:
            shown = " ".join(str(value).split())[:60]
            raise WrongScenario(f"{key}: {shown!r} is not allowed; {keys[key]['allowed']} is") from None
    return Scenario(**values)


def plan(scenario: Scenario, seed: int) -> list[Person]:
    """Who comes when and does what: the same for the same scenario and seed."""
    luck = random.Random(f"swarm {seed}")  # noqa: S311 - the same people in every run
    arrivals = sorted(luck.uniform(0, scenario.arrivals.within_s) for _ in range(scenario.arrivals.people))
    return [_draw(scenario, luck, number, arrives_s) for number, arrives_s in enumerate(arrivals, 1)]


def describe_keys() -> str:
    """Every key with its meaning, default and range, for people."""
    lines = []
    for each in fields(Scenario):
        known, default = each.metadata, each.metadata["default"]
        shown = str(default).lower() if isinstance(default, bool) else default
        lines.append(f"  {each.name:<14}{known['text']} (default: {shown})\n{'':<16}{known['allowed'].rstrip(',')}")
    return "\n".join(lines)


def _draw(scenario: Scenario, luck: random.Random, number: int, arrives_s: float) -> Person:
    # Everything is drawn for everybody, so that a changed share changes nobody else's day.
    hesitates_s, moments = scenario.hesitate.draw(luck), [luck.uniform(0.05, 0.7) for _ in range(3)]
    dice = [luck.random() for _ in range(5)]
    away_s, off_s, back_at = scenario.away.draw(luck), scenario.wifi_off.draw(luck), luck.uniform(0.75, 0.95)
    mishaps = [
        Mishap("reload", moments[0]) if dice[0] < scenario.reloads else None,
        Mishap("return", moments[1], away_s) if dice[1] < scenario.returns else None,
        Mishap("wifi", moments[2], off_s) if dice[2] < scenario.wifi_losses else None,
    ]
    return Person(
        email=f"swarm-{number:05d}@{DOMAIN}",
        pool=scenario.pool[number % len(scenario.pool)],
        arrives_s=arrives_s,
        hesitates_s=hesitates_s,
        clicks=2 if dice[3] < scenario.double_clicks else 1,
        mishaps=tuple(sorted(filter(None, mishaps), key=lambda each: each.at)),
        gives_back_at=back_at if dice[4] < scenario.gives_back else None,
    )


def _keys() -> dict[str, Mapping[str, Any]]:
    return {each.name: each.metadata for each in fields(Scenario)}
