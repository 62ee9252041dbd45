"""The supervisor: owns every background task; one that fails is logged, shown and started again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

# However long Postgres was away, everything is at work again within moments of its return.
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 2.0
STEADY_S = 30.0

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class TaskState:
    """How one task fares. ``last_error`` is the sentence of its latest failure, None while all is well."""

    name: str
    restarts: int = 0
    last_error: str | None = None

    def note(self, exc: Exception) -> None:
        """Keeps and logs a failure; one that repeats itself is logged once."""
        said = f"{type(exc).__name__}: {exc}".splitlines()[0][:300]
        # A known refusal (Postgres away) needs no traceback.
        level = logging.DEBUG if said == self.last_error else logging.ERROR
        logger.log(level, "task %s failed: %s", self.name, said, exc_info=not hasattr(exc, "error_code"))
        self.last_error = said

    def forgive(self) -> None:
        """All is well by now."""
        self.last_error = None


class Supervisor:
    """Starts tasks and keeps them running until stopped."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self.states: dict[str, TaskState] = {}

    def start(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        """Runs ``work()`` for ever: again after it raises, with growing pauses, and again after it returns."""
        self.states[name] = TaskState(name)
        self._tasks.append(asyncio.create_task(self._keep(self.states[name], work), name=name))

    def start_every(self, name: str, every_s: float, work: Callable[[], Awaitable[object]]) -> None:
        """Runs ``work()`` every ``every_s`` seconds, counted from the end of the former run."""

        async def repeat() -> None:
            while True:
                await work()
                self.states[name].forgive()
                await asyncio.sleep(every_s)

        self.start(name, repeat)

    async def stop(self) -> None:
        """Cancels all tasks, the latest first, and waits for their ends."""
        for task in reversed(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _keep(self, state: TaskState, work: Callable[[], Awaitable[object]]) -> None:
        loop = asyncio.get_running_loop()
        retry_s = FIRST_RETRY_S
        while True:
            began = loop.time()
            steady = loop.call_later(STEADY_S, state.forgive)
            try:
                await work()
                logger.info("task %s ended; starting it again", state.name)
            except Exception as exc:
                state.note(exc)
            finally:
                steady.cancel()
            if loop.time() - began > STEADY_S:
                retry_s = FIRST_RETRY_S
            state.restarts += 1
            await asyncio.sleep(retry_s * random.uniform(0.7, 1.3))  # noqa: S311 - jitter, not a secret
            retry_s = min(retry_s * 2, LAST_RETRY_S)
