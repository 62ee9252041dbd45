"""What an agent keeps on disk: its token (for its user's eyes alone) and the results of commands it has done."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

JOURNAL_LENGTH = 200


class Store:
    """Files under the agent's home; each is replaced as a whole, so that a crash leaves the old or the new."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)
        self.home = home
        self._writing = threading.Lock()
        self._token = home / "agent.token"
        self._journal = home / "commands.json"

    def find_token(self) -> str | None:
        """The agent token, if this machine has enrolled."""
        try:
            token = self._token.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return None
        return token if token and token.isascii() and token.isprintable() else None

    def keep_token(self, token: str) -> None:
        """Stores the agent token, readable by this user alone. With a new one, commands are numbered anew."""
        self._journal.unlink(missing_ok=True)
        _replace(self._token, token)

    def forget_token(self) -> None:
        """This machine speaks for no VM any more."""
        self._token.unlink(missing_ok=True)

    def find_result(self, command_id: int) -> dict[str, Any] | None:
        """The result of a command done before: it is told again, never done again."""
        result: dict[str, Any] | None = self._results().get(str(command_id))
        return result

    def keep_result(self, command_id: int, result: dict[str, Any]) -> None:
        """Remembers a result, before it is told."""
        with self._writing:
            results = self._results() | {str(command_id): result}
            newest = sorted(results, key=int)[-JOURNAL_LENGTH:]
            _replace(self._journal, json.dumps({key: results[key] for key in newest}))

    def write(self, path: Path, content: str) -> None:
        """Writes a further file of the agent's own, as a whole and for this user's eyes alone."""
        _replace(path, content)

    def _results(self) -> dict[str, Any]:
        try:
            loaded = json.loads(self._journal.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return loaded if isinstance(loaded, dict) else {}


def _replace(path: Path, content: str) -> None:
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
