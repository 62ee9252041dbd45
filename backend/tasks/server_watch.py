"""How this very process fares: does its event loop keep time, does it hear Postgres, has its disk room."""

from __future__ import annotations

import asyncio
import shutil
import socket
import time
from collections import deque

from backend.db.notices import NoticeListener
from backend.services.alarm_rules import Seen
from backend.settings import Settings
from backend.states import AlarmKind, Severity

EVERY_S = 0.25
WINDOW_S = 60.0
# Late this often within the window: one pause (a large reply, a collection of garbage) is no illness.
LATE_TIMES = 3
DEAF_AFTER_S = 30.0
# Room must be this much better before the alarm is over, so that it does not come and go.
DISK_BETTER_PCT = 2


class ServerWatch:
    """Measures while ``measure`` runs; ``look`` says what is wrong. ``source`` names this process among others."""

    def __init__(self, listener: NoticeListener, settings: Settings) -> None:
        self.source = f"{socket.gethostname()}:{settings.server.port}"
        self._settings = settings
        self._lags: deque[tuple[float, float]] = deque(maxlen=int(WINDOW_S / EVERY_S))
        self._deaf_since: float | None = None
        self._is_disk_low = False
        listener.subscribe(on_gap=self._hear, on_lost=self._lose)

    async def measure(self) -> None:
        """Measures the event loop's lag until cancelled."""
        while True:
            due = time.monotonic() + EVERY_S
            await asyncio.sleep(EVERY_S)
            self.record_lag(time.monotonic() - due)

    def record_lag(self, lag_s: float) -> None:
        """The loop was late by this much just now."""
        self._lags.append((time.monotonic(), lag_s))

    @property
    def lag_s(self) -> float:
        """By how much the loop was late ``LATE_TIMES`` times within the last minute."""
        since = time.monotonic() - WINDOW_S
        worst = sorted((lag for at, lag in self._lags if at >= since), reverse=True)
        return worst[LATE_TIMES - 1] if len(worst) >= LATE_TIMES else 0.0

    @property
    def disk_free_pct(self) -> float:
        """Free space of the data directory's disk, from 0 to 100."""
        usage = shutil.disk_usage(self._settings.home)
        return 100 * usage.free / usage.total

    def look(self) -> list[Seen]:
        """What is wrong with this process now."""
        return [seen for seen in (self._see_lag(), self._see_deafness(), self._see_disk()) if seen]

    def _see_lag(self) -> Seen | None:
        if self.lag_s < self._settings.alarms.loop_lag_s:
            return None
        sentence = f"The server {self.source} is slow: it was late by {self.lag_s:.1f} s several times in a minute."
        return _seen("event loop", Severity.WARNING, sentence, "Give it more CPU, or look at what else runs there.")

    def _see_deafness(self) -> Seen | None:
        if self._deaf_since is None or time.monotonic() - self._deaf_since < DEAF_AFTER_S:
            return None
        sentence = f"The server {self.source} does not hear Postgres: its pages lag behind the truth."
        remedy = "LISTEN needs a direct connection: see whether a pooler or a firewall stands between."
        return _seen("listener", Severity.CRITICAL, sentence, remedy)

    def _see_disk(self) -> Seen | None:
        free, limit = self.disk_free_pct, self._settings.alarms.disk_free_pct
        self._is_disk_low = free < limit + (DISK_BETTER_PCT if self._is_disk_low else 0)
        if not self._is_disk_low:
            return None
        severity = Severity.CRITICAL if free < limit / 2 else Severity.WARNING
        # Whole numbers: each change of the sentence is a notice to every page.
        sentence = f"The disk of {self.source} has {free:.0f} % left."
        return _seen("disk", severity, sentence, f"Make room where {self._settings.home} is, or enlarge the disk.")

    def _hear(self) -> None:
        self._deaf_since = None

    def _lose(self) -> None:
        self._deaf_since = time.monotonic()


def _seen(subject: str, severity: Severity, sentence: str, remedy: str) -> Seen:
    return Seen(AlarmKind.SERVER, subject, severity, sentence, remedy)
