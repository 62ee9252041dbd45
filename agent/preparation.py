"""What is prepared, and who hears of it: the server may say the one, and is told the other."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.client import READ_S, Backoff, Client, Refused, ServerAway
from agent.config import Config
from agent.store import Store
from agent.workload import PreparationFailed, Step

logger = logging.getLogger("lablink.agent")


def ask_what_to_prepare(config: Config, store: Store, client: Client, stopping: threading.Event) -> Config:
    """The configuration with what the server has this machine clone and run.

    Raises:
        PreparationFailed: the server does not say, or the agent was told to stop before it did.
    """
    backoff = Backoff()
    while not stopping.is_set():
        try:
            return _with_answer(config, store, client.get("/api/preparation", timeout_s=READ_S))
        except Refused as exc:
            raise PreparationFailed(f"the server does not say what to prepare: {exc}") from exc
        except ServerAway as exc:
            stopping.wait(backoff.pause_s(exc))
    raise PreparationFailed("the preparation was broken off")


def tell_step(client: Client, step: Step, redact: Callable[[str], str]) -> None:
    """Tells how long a step took. The machine does not wait for an ear: what failed is in its heartbeats too."""
    word = "succeeded" if step.has_succeeded else "failed"
    logger.info("%s: %s after %.1f s", step.name, word, step.duration_s)
    body = {
        "step": step.name,
        "status": word,
        "duration_s": step.duration_s,
        "lines": [redact(line) for line in step.lines],
    }
    with contextlib.suppress(ServerAway, Refused):
        client.post("/api/boot_steps", body)


def _with_answer(config: Config, store: Store, answer: Mapping[str, Any]) -> Config:
    repository = answer.get("repository")
    return replace(
        config,
        startup_script=_keep_script(store, "startup.sh", answer.get("startup_script")),
        cleaning_script=_keep_script(store, "cleaning.sh", answer.get("cleaning_script")),
        repository=repository if isinstance(repository, str) else None,
    )


def _keep_script(store: Store, name: str, script: object) -> Path | None:
    """A script becomes a file. One that begins with ``#!`` says what runs it; any other is the shell's."""
    if not isinstance(script, str) or not script:
        return None
    path = store.home / name
    # Forms on pages give lines an end that no shell knows.
    script = script.replace("\r\n", "\n")
    store.write(path, script)
    path.chmod(0o700 if script.startswith("#!") else 0o600)
    return path
