"""What a run says: its log and the progress of each VM, written down a few times a second."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from backend.db.engine import Database
from backend.errors import Unavailable
from backend.provisioning.output import OutputLine
from backend.services import runs
from backend.services.runs import LeaseLost, LogLine, Progress, Run
from backend.states import OperationKind, ProgressState

WRITE_S = 0.2
MAX_DETAIL = 500


class RunReport:
    """The report of one run. ``failures``: in Terraform's words, what was said last of each VM that failed."""

    def __init__(self, db: Database, run: Run, *, owner: str, explain: Callable[[str], str]) -> None:
        self.failures: dict[str, str] = {}
        self._db, self._run, self._owner, self._explain = db, run, owner, explain
        self._lines: list[LogLine] = []
        self._progress: dict[str, Progress] = {}

    def note(self, line: OutputLine) -> None:
        """Takes a line of Terraform's."""
        self._lines.append(LogLine(line.at, line.level, line.message))
        if line.hostname and line.state and line.action in {None, "create", "delete"}:
            is_done = line.state is ProgressState.DONE
            # Of a replacement the deletion is only the first half.
            wanted = "create" if self._run.kind is OperationKind.LAUNCH else "delete"
            state = line.state if line.action == wanted or not is_done else ProgressState.RUNNING
            detail = line.message if state is ProgressState.FAILED else None
            self._progress[line.hostname] = Progress(state, detail, line.elapsed_s)
        elif line.hostname and line.is_error:
            self.failures[line.hostname] = line.message
            detail = self._explain(line.message)[:MAX_DETAIL]
            self._progress[line.hostname] = Progress(ProgressState.FAILED, detail, line.elapsed_s)

    def say(self, level: str, message: str) -> None:
        """Adds a line of our own."""
        self._lines.append(LogLine(self._db.now(), level, message))

    def say_of_each(self, level: str, sentences: Mapping[str, str]) -> None:
        """Adds a line for each different sentence, and shows it at the VMs that it is said of, by hostname."""
        for sentence in dict.fromkeys(sentences.values()):
            self.say(level, sentence)
        self._progress |= {name: Progress(ProgressState.RUNNING, sentences[name], 0.0) for name in sentences}

    async def keep_writing(self) -> None:
        """Writes until cancelled."""
        while True:
            await asyncio.sleep(WRITE_S)
            with contextlib.suppress(Unavailable, LeaseLost):
                await self.write()

    async def write(self) -> None:
        """Writes what was said since; what cannot be written now stays for the next time.

        Raises:
            Unavailable, LeaseLost
        """
        lines, self._lines = self._lines, []
        progress, self._progress = self._progress, {}
        try:
            await runs.record_log(self._db, self._run.operation_id, lines)
            lines = []
            if progress:
                await runs.record_progress(self._db, self._run.operation_id, owner=self._owner, progress=progress)
        except BaseException:
            self._lines = lines + self._lines
            self._progress = progress | self._progress
            raise
