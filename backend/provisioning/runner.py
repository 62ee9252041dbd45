"""The Terraform runner: init, plan, apply exactly that plan, and read what exists. One directory and state per pool."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from python_terraform import IsFlagged, Terraform

from backend.errors import LabLinkError
from backend.provisioning.init_note import InitNote, forget_init
from backend.provisioning.locks import Lock, RunNotes, find_lock
from backend.provisioning.output import VM_RESOURCE, OutputLine, parse_line
from backend.provisioning.planned import PlanHearer, PlannedChange
from backend.provisioning.process import end_leftover, run
from backend.provisioning.state_files import (
    Content,
    bring_back_state,
    keep_state,
    parse_known_state,
    read_own_state,
)
from backend.spans import span

if TYPE_CHECKING:
    # It brings the whole database along, which `lablink deploy` has no use for.
    from backend.provisioning.providers import Backend

PLAN, TFVARS = "plan.out", "lablink.auto.tfvars.json"
NO_STATE, BACKEND = "no.tfstate", "backend.tf.json"
# Where Terraform leaves a state that it could not write to its backend.
ERRORED = "errored.tfstate"
# How much garbage Go's programs make before they collect it. Terraform and its provider for AWS end before they would
# need most of what they collect: a fifth less work, for 100 MB more while they run.
LESS_COLLECTING = {"GOGC": "400"}
# What takes the lock of the state.
_LOCKING = frozenset({"plan", "apply", "untaint", "state push"})
# What does not speak JSON says what went wrong in its last lines, within a frame.
LAST_LINES, FRAME = 20, " │╷╵"
# What Terraform and its children may see of our environment: never TF_* of the caller, never our own secrets.
_PASSED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)

logger = logging.getLogger(__name__)


class TerraformFailed(LabLinkError):
    """Terraform ended with an error; the message is its own first error."""

    code = "terraform_failed"


class StateLocked(TerraformFailed):
    """Somebody else is at this state."""

    code = "state_locked"


class TerraformCancelled(LabLinkError):
    """Terraform was stopped because somebody asked for it."""

    code = "cancelled"


@dataclass
class TerraformRunner:
    """Runs Terraform in ``directory`` on a copy of ``module``. ``redact``: strings that must never reach a log.

    ``fetch_state`` reads a state that is kept elsewhere than here, quicker than Terraform would.
    """

    binary: Path
    module: Path
    directory: Path
    backend: Backend | None = None
    fetch_state: Callable[[], Awaitable[Content]] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    redact: Sequence[str] = ()
    on_line: Callable[[OutputLine], None] = lambda _: None
    cancel: asyncio.Event = field(default_factory=asyncio.Event)
    grace_s: float = 30
    lock_wait_s: int = 60

    @property
    def has_unfinished(self) -> bool:
        """Whether the last run here did not end well: what it made may not be in the state."""
        return bool(RunNotes(self.directory))

    async def init(self, **options: Any) -> None:
        """Makes the directory ready: ends a leftover run, copies the module, installs its providers (unless all is as
        it was), and hands in a state that the last run could not.

        ``options`` are further ones of ``terraform init``.

        Raises:
            TerraformFailed, TerraformCancelled
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        await end_leftover(self.directory, grace_s=self.grace_s)
        self._bring_back_state()
        self._write_backend()
        about = {"options": repr(sorted(options.items())), "environment": repr(sorted(self._terraforms_own().items()))}
        note = InitNote(self.module, self.directory, self.binary, about)
        if not await asyncio.to_thread(note.holds):
            forget_init(self.directory)
            await asyncio.to_thread(self._copy_module)
            await self._run("init", no_color=IsFlagged, input=False, **options)
            await asyncio.to_thread(note.write)
        if (self.directory / ERRORED).exists():
            self._say("warn", "the last run could not hand in the state that it left; it is handed in now")
            await self._run("state push", ERRORED)
            (self.directory / ERRORED).unlink()

    async def plan(
        self, tfvars: Mapping[str, Any], *, parallelism: int, refresh: bool = True, **options: Any
    ) -> list[PlannedChange]:
        """Plans for these variables; returns what would change. Without ``refresh`` the state is taken at its word.

        ``options`` are further ones of ``terraform plan``.

        Raises:
            TerraformFailed, TerraformCancelled
            PlanUnclear: it cannot be known what would change.
        """
        write_private(self.directory / TFVARS, json.dumps(tfvars, indent=1))
        options = {"parallelism": parallelism, "refresh": refresh, **options}
        hearer = PlanHearer()
        await self._run("plan", json=IsFlagged, input=False, out=PLAN, hear=hearer.hear, **options)
        return hearer.list_changes()

    async def show_plan(self) -> dict[str, Any]:
        """The last plan with all its values (developer.hashicorp.com/terraform/internals/json-format).

        Raises:
            TerraformFailed
        """
        return await self._read_json("show", PLAN, json=IsFlagged)

    async def apply(self, *, parallelism: int) -> None:
        """Applies exactly the last plan. The state is kept whatever happens.

        Raises:
            TerraformFailed, TerraformCancelled
        """
        keep_state(self.directory)
        try:
            await self._run("apply", PLAN, json=IsFlagged, input=False, parallelism=parallelism)
        finally:
            (self.directory / PLAN).unlink(missing_ok=True)

    async def list_vms(self) -> dict[str, bool]:
        """The VMs in the state by hostname: whether each is whole (a half-made one is tainted).

        Raises:
            TerraformFailed: the state cannot be read.
        """
        self._bring_back_state()
        return {name: status != "tainted" for name, (_, status) in (await self._read_vms()).items()}

    async def count_as_whole(self, hostname: str) -> None:
        """Takes the taint from a half-made VM that has proved to be whole.

        Raises:
            TerraformFailed, TerraformCancelled
        """
        kind, _ = (await self._read_vms())[hostname]
        await self._run("untaint", f'{kind}.{VM_RESOURCE}["{hostname}"]')

    async def list_addresses(self) -> set[str]:
        """What the state holds, as ``type.name``; nothing where there is no state yet.

        Raises:
            TerraformFailed: the state cannot be read.
        """
        state = await self._read_state()
        return {f"{each['type']}.{each['name']}" for each in state.get("resources", []) if each["mode"] == "managed"}

    async def forget(self, addresses: Sequence[str]) -> None:
        """Takes these out of the state; they themselves stay as they are.

        Raises:
            TerraformFailed, TerraformCancelled
        """
        await self._run("state rm", *addresses)

    async def list_outputs(self) -> dict[str, Any]:
        """The outputs of the last apply, by name.

        Raises:
            TerraformFailed: the state cannot be read.
        """
        outputs = (await self._read_state()).get("outputs", {})
        return {name: output["value"] for name, output in outputs.items()}

    async def _read_vms(self) -> dict[str, tuple[str, str | None]]:
        """The kind and status of each VM resource of the state, by hostname.

        Off the state as it is written: `terraform show -json` would start the provider, for seconds, just to read it.
        """
        state = await self._read_state()
        return {
            str(instance["index_key"]): (str(resource["type"]), instance.get("status"))
            for resource in state.get("resources", [])
            if resource["name"] == VM_RESOURCE and resource["mode"] == "managed"
            for instance in resource["instances"]
            if "index_key" in instance
        }

    async def _run(self, command: str, *arguments: str, **options: Any) -> None:
        """Runs a command. A lock that a dead run of ours left is released; for anybody else's it waits.

        Raises:
            TerraformFailed, TerraformCancelled
        """
        if command not in _LOCKING:
            await self._run_once(command, *arguments, **options)
            return
        try:
            await self._run_with_lock(command, *arguments, **options)
        except _LockIsHeld as exc:
            lock = exc.lock
            if RunNotes(self.directory).is_left_by_us(lock):
                self._say("warn", f"the lock that a run of ours left at {lock.created_at:%H:%M:%S} UTC is released")
                await self._run_once("force-unlock", lock.id, force=IsFlagged)
            else:
                since = f"{lock.created_at:%Y-%m-%d %H:%M:%S} UTC"
                self._say("warn", f"{lock.who} has had this state locked since {since} ({lock.operation}); waiting")
                options["lock_timeout"] = f"{self.lock_wait_s}s"
            await self._run_with_lock(command, *arguments, **options)

    async def _run_with_lock(self, command: str, *arguments: str, **options: Any) -> None:
        notes = RunNotes(self.directory)
        notes.note_begin()
        try:
            await self._run_once(command, *arguments, **options)
        except TerraformFailed as exc:
            lock = find_lock(exc.message)
            if lock is None:
                notes.note_end()
                raise
            notes.drop_last()
            raise _LockIsHeld(lock) from exc
        except TerraformCancelled:
            notes.note_end()
            raise
        notes.forget()

    async def _run_once(
        self, command: str, *arguments: str, hear: Callable[[str], None] = lambda _: None, **options: Any
    ) -> None:
        if self.cancel.is_set():
            raise TerraformCancelled("cancelled")
        errors: list[str] = []
        last: deque[str] = deque(maxlen=LAST_LINES)

        def on_line(raw: str) -> None:
            hear(raw)
            line = parse_line(raw, redact=self.redact)
            if line is not None:
                last.append(line.message.strip(FRAME))
                if line.is_error:
                    errors.append(line.message)
                self.on_line(line)

        with span(f"terraform {command}", {}):
            code = await run(
                self._argv(command, *arguments, **options),
                directory=self.directory,
                environment=self._environment(),
                on_line=on_line,
                cancel=self.cancel,
                grace_s=self.grace_s,
            )
            if self.cancel.is_set():
                raise TerraformCancelled("cancelled")
            if code != 0:
                if command != "apply":
                    # Whatever it was, the next run begins from the beginning. (Before an apply, all had been there.)
                    forget_init(self.directory)
                raise TerraformFailed(f"terraform {command}: {_why(code, errors, last)}")

    def _say(self, level: str, message: str) -> None:
        self.on_line(OutputLine(datetime.now(UTC), level, message))

    async def _read_state(self) -> dict[str, Any]:
        """The state; empty where there is none yet.

        Read past Terraform where that is possible: it would first take the checksum of 700 MB of providers.
        """
        if self.backend is None:
            known = await asyncio.to_thread(read_own_state, self.directory)
        else:
            known = await self._fetch_state()
        return await self._read_json("state pull") if known is None else known

    async def _fetch_state(self) -> dict[str, Any] | None:
        if self.fetch_state is None:
            return None
        try:
            content = await self.fetch_state()
        except LabLinkError as exc:
            logger.warning("the state could not be read past Terraform: %s", exc.message)
            return None
        # That there is none is for Terraform to say: it may be the bucket that is missing.
        return parse_known_state(content) if content else None

    async def _read_json(self, command: str, *arguments: str, **options: Any) -> dict[str, Any]:
        lines: list[str] = []
        argv = self._argv(command, *arguments, **options)
        code = await run(argv, directory=self.directory, environment=self._environment(), on_line=lines.append)
        if code != 0:
            raise TerraformFailed(f"terraform {command}: {' '.join(lines)[:500]}")
        try:
            loaded = await asyncio.to_thread(json.loads, "\n".join(lines) or "{}")
        except ValueError as exc:
            raise TerraformFailed(f"terraform {command}: an answer that is not JSON") from exc
        return loaded if isinstance(loaded, dict) else {}

    def _argv(self, command: str, *arguments: str, **options: Any) -> list[str]:
        # It would read the state, whole and each time, for a method that we do not use.
        terraform = Terraform(state=str(self.directory / NO_STATE), terraform_bin_path=str(self.binary))
        argv: list[str] = terraform.generate_cmd_string(command, *arguments, **options)
        return argv

    def _terraforms_own(self) -> dict[str, str]:
        return {name: value for name, value in self.environment.items() if name.startswith("TF_")}

    def _copy_module(self) -> None:
        unwanted = shutil.ignore_patterns(".terraform", "terraform.tfstate*")
        shutil.copytree(self.module, self.directory, ignore=unwanted, dirs_exist_ok=True)
        # What is copied keeps its modes; the directory is ours alone all the same.
        self.directory.chmod(0o700)

    def _environment(self) -> dict[str, str]:
        passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
        return {**passed, "TF_IN_AUTOMATION": "1", "TF_INPUT": "0", "CHECKPOINT_DISABLE": "1", **self.environment}

    def _bring_back_state(self) -> None:
        if bring_back_state(self.directory):
            self._say("warn", "the last run was killed while it wrote the state; the one before it is brought back")

    def _write_backend(self) -> None:
        if self.backend is None:
            (self.directory / BACKEND).unlink(missing_ok=True)
            return
        blocks = {self.backend.kind: dict(self.backend.arguments)}
        write_private(self.directory / BACKEND, json.dumps({"terraform": {"backend": blocks}}, indent=1))


class _LockIsHeld(StateLocked):
    """The state is locked by this run of Terraform, wherever it is."""

    def __init__(self, lock: Lock) -> None:
        since = f"{lock.created_at:%Y-%m-%d %H:%M:%S} UTC"
        super().__init__(
            f"{lock.who} has had the pool's state locked since {since} (terraform {lock.operation}). Ask again when "
            f"that has ended; if it is dead, `terraform force-unlock {lock.id}` in the pool's directory ends its lock."
        )
        self.lock = lock


def _why(code: int, errors: Sequence[str], last: Iterable[str]) -> str:
    if errors:
        return errors[0]
    if code < 0:
        return f"it was killed (signal {-code})"
    # Not every command marks its errors.
    return " ".join(filter(None, last)) or f"it ended with status {code} and gave no reason"


def write_private(path: Path, content: str) -> None:
    """Replaces a file as a whole, readable by this user alone."""
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(content)
    temporary.replace(path)
