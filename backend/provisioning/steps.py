"""The steps of an operation: take the lease, plan, guard, apply, write down what exists. No provider by name here."""

from __future__ import annotations

import asyncio
import fcntl
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from backend.db.engine import Database
from backend.errors import LabLinkError, Unavailable
from backend.provisioning.guard import check_plan
from backend.provisioning.places import Places
from backend.provisioning.providers import Place, Provider, ProviderVm
from backend.provisioning.providers.facts import Imports
from backend.provisioning.rebuild import find_unrecorded, importing, rebuild_state
from backend.provisioning.run_report import RunReport
from backend.provisioning.runner import TerraformCancelled, TerraformFailed, TerraformRunner
from backend.request_ids import resume_request
from backend.services import runs
from backend.services.actor import Actor
from backend.services.enrolments import create_vm_enrolments
from backend.services.runs import LeaseLost, Run, RunVm
from backend.spans import Attributes, Span, span
from backend.states import OperationKind, OperationStatus

LEASE_LOOK_S = 1.0
LOCK_LOOK_S = 0.1
_T = TypeVar("_T")

logger = logging.getLogger(__name__)


class PlanRefused(LabLinkError):
    """The guard said no; nothing was changed."""

    code = "plan_refused"


class NoRoom(LabLinkError):
    """The provider had room for a VM at none of its places."""

    code = "no_room"


@dataclass(slots=True)
class Outcome:
    """How it ended, which VMs exist whole afterwards (None: it could not be found out), which were taken away again."""

    status: OperationStatus
    reason: str | None = None
    existing: frozenset[str] | None = None
    removed: frozenset[str] = frozenset()


@dataclass
class Worker:
    """Carries out operations. ``running`` are the ids it is at right now; ``secrets`` what no log may hold."""

    db: Database
    home: Path
    binary: Path
    providers: Mapping[str, Provider]
    owner: str
    parallelism: int = 0
    grace_s: float = 30
    secrets: tuple[str, ...] = ()
    running: set[int] = field(default_factory=set)
    # Raises a LabLinkError where the data directory may not be the one in which states are written down.
    check_directory: Callable[[], Awaitable[None]] | None = None
    # Pools share what Terraform installs, and its cache is made for one writer at a time.
    installing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run_operation(self, operation_id: int) -> None:
        """Carries out one operation, whole; does nothing if it has ended or another worker is at it."""
        run = await runs.begin_run(self.db, operation_id, owner=self.owner)
        if run is None:
            return
        resume_request(run.request_id)
        self.running.add(operation_id)
        about: Attributes = {
            "lablink.operation_id": operation_id,
            "lablink.pool": run.pool.name,
            "lablink.attempt": run.attempt,
        }
        try:
            with span(f"operation {run.kind}", about) as begun:
                await _Execution(self, run).carry_out(begun)
        except LeaseLost as exc:
            logger.warning("%s", exc)
        finally:
            self.running.discard(operation_id)


class _Execution:
    """One attempt at one operation."""

    def __init__(self, worker: Worker, run: Run) -> None:
        self._worker, self._run, self._db = worker, run, worker.db
        self._provider = worker.providers[run.pool.provider]
        self._report = RunReport(worker.db, run, owner=worker.owner, explain=self._provider.explain)
        self._unrecorded = Imports({})
        self._cancel = asyncio.Event()
        self._is_lost = False
        self._terraform = TerraformRunner(
            binary=worker.binary,
            module=self._provider.module,
            directory=worker.home / "pools" / str(run.pool.id),
            backend=self._provider.backend_of(run.pool),
            fetch_state=lambda: self._provider.facts.read_state(run.pool),
            environment=self._provider.environment,
            on_line=self._report.note,
            cancel=self._cancel,
            grace_s=worker.grace_s,
        )
        self._terraform.redact = worker.secrets

    async def carry_out(self, begun: Span) -> None:
        reporting = asyncio.create_task(self._report.keep_writing())
        leasing = asyncio.create_task(self._keep_lease())
        try:
            outcome = await self._attempt()
        finally:
            for task in (reporting, leasing):
                task.cancel()
            await asyncio.gather(reporting, leasing, return_exceptions=True)
        if self._is_lost:
            return
        has_failed = outcome.status is OperationStatus.FAILED
        begun.note({"lablink.operation_status": outcome.status}, has_failed=has_failed)
        if outcome.reason and outcome.status is not OperationStatus.SUCCEEDED:
            self._report.say("error" if outcome.status is OperationStatus.FAILED else "warn", outcome.reason)
        await self._until_answered(self._report.write)
        await self._until_answered(lambda: self._finish(outcome))

    async def _attempt(self) -> Outcome:
        try:
            await self._check_directory()
        except LabLinkError as exc:
            # Nothing is looked at either: what is not written down here may be written down elsewhere.
            return Outcome(OperationStatus.FAILED, exc.message)
        try:
            if self._run.attempt > 1:
                self._report.say("warn", f"attempt {self._run.attempt}: the former worker died; what it made is kept")
            await self._work()
            outcome = Outcome(OperationStatus.SUCCEEDED)
        except TerraformCancelled:
            outcome = Outcome(OperationStatus.CANCELLED, "cancelled; what was made by then is kept")
        except LabLinkError as exc:
            outcome = Outcome(OperationStatus.FAILED, self._provider.explain(exc.message))
        except Exception as exc:
            logger.exception("operation %s failed by a defect", self._run.operation_id)
            outcome = Outcome(OperationStatus.FAILED, f"an error of LabLink's own: {type(exc).__name__}: {exc}")
        return await self._look(outcome)

    async def _work(self) -> None:
        if self._run.kind is OperationKind.REBUILD:
            pool, at = self._run.pool, self._db.now()
            await rebuild_state(self._terraform, self._provider, pool, init=self._init, at=at, say=self._report.say)
            return
        has_unfinished = self._run.attempt > 1 or self._terraform.has_unfinished
        await self._init()
        before = await self._recognise(await self._terraform.list_vms())
        if has_unfinished and self._run.kind is OperationKind.LAUNCH:
            before = await self._take_stock(before)
        await self._carry_through(before)

    async def _check_directory(self) -> None:
        check = self._worker.check_directory
        if check is not None and self._provider.backend_of(self._run.pool) is None:
            await self._until_answered(check)

    async def _init(self) -> None:
        async with self._worker.installing, _alone(self._worker.home / "terraform.lock"):
            await self._terraform.init()

    async def _take_stock(self, before: Mapping[str, bool]) -> Mapping[str, bool]:
        """Finds what a run that was killed has made without writing it down: the next plan takes it into the state."""
        self._unrecorded = await find_unrecorded(self._provider, self._run.pool, self._run.targets)
        if self._unrecorded.ids:
            names = ", ".join(sorted(self._unrecorded.ids))
            self._report.say(
                "warn", f"a run that was killed made this without writing it down; it is taken over: {names}"
            )
        return {**before, **dict.fromkeys(self._unrecorded.hostnames, True)}

    async def _carry_through(self, before: Mapping[str, bool]) -> None:
        """Plans and applies, again for as long as VMs that found no room have another place to try."""
        to_make = [vm.hostname for vm in self._run.vms if self._shall_be_made(vm, before)]
        places = Places(self._provider, await self._provider.list_places(self._run.pool) if to_make else [], to_make)
        while True:
            self._report.failures.clear()
            try:
                await self._apply(before, places.now)
            except TerraformFailed as exc:
                moves = {} if self._cancel.is_set() else places.find_next(self._report.failures)
                if not moves and places.is_full(self._report.failures):
                    raise NoRoom(f"{self._provider.explain(exc.message)} Tried: {places.name_tried()}.") from exc
                if not moves:
                    raise
            else:
                return
            self._report.say_of_each("warn", moves)
            # Terraform takes over before it makes.
            self._unrecorded = Imports({})
            before = await self._recognise(await self._terraform.list_vms())

    async def _apply(self, before: Mapping[str, bool], places: Mapping[str, Place]) -> None:
        run, is_launch = self._run, self._run.kind is OperationKind.LAUNCH
        wanted = [vm for vm in run.vms if self._shall_exist(vm, before)]
        to_make = [vm.id for vm in wanted if self._shall_be_made(vm, before)]
        actor = Actor.operation(run.operation_id)
        tokens = await self._until_answered(lambda: create_vm_enrolments(self._db, to_make, actor=actor))
        await self._until_answered(lambda: runs.record_places(self._db, run.operation_id, places))
        self._terraform.redact = (*self._worker.secrets, *tokens.values())
        vms = [ProviderVm(vm.hostname, tokens.get(vm.id), places.get(vm.hostname, vm.place)) for vm in wanted]
        inputs = self._provider.write_inputs(self._terraform.directory, run.pool, vms)
        self._terraform.environment = {**self._provider.environment, **inputs.environment}
        parallelism = self._worker.parallelism or inputs.parallelism
        tfvars = {**inputs.tfvars, **self._unrecorded.tfvars}
        with importing(self._terraform.directory, self._unrecorded.ids):
            changes = await self._terraform.plan(tfvars, parallelism=parallelism, refresh=inputs.refresh)
        living = run.living | await self._list_living()
        verdict = check_plan(changes, destroying=frozenset() if is_launch else run.targets, living=living)
        if not verdict.is_allowed:
            raise PlanRefused("The plan was refused: " + "; ".join(verdict.refusals) + ".")
        half_made = [name for name in verdict.replaced if name not in run.targets]
        if half_made:
            self._report.say("warn", f"half-made machines are made anew: {', '.join(half_made)}")
            if is_launch:
                await self._until_answered(lambda: runs.take_in(self._db, run.operation_id, half_made))
        await self._terraform.apply(parallelism=parallelism)

    def _shall_be_made(self, vm: RunVm, before: Mapping[str, bool]) -> bool:
        return self._shall_exist(vm, before) and not before.get(vm.hostname, False)

    def _shall_exist(self, vm: RunVm, before: Mapping[str, bool]) -> bool:
        if vm.is_target:
            return self._run.kind is OperationKind.LAUNCH
        is_whole = before.get(vm.hostname)
        if is_whole is None:
            return False
        # A launch makes half-made machines anew; a destroy clears them away, since nobody asked for them to be made.
        return is_whole or vm.is_living or self._run.kind is OperationKind.LAUNCH

    async def _recognise(self, state: Mapping[str, bool]) -> Mapping[str, bool]:
        """Counts those VMs as whole that Terraform was kept from finishing, now or earlier, but that have reported.

        Where Terraform had finished one, somebody has tainted it since, and means it.
        """
        tainted = {name for name, is_whole in state.items() if not is_whole}
        if not tainted:
            return state
        unfinished = await self._until_answered(lambda: runs.list_unfinished(self._db, self._run.pool.id))
        is_launch = self._run.kind is OperationKind.LAUNCH
        half_made = tainted & (unfinished | self._run.targets if is_launch else unfinished - self._run.targets)
        living = half_made & await self._list_living()
        for name in sorted(living):
            self._report.say("info", f"{name} has reported: it is made, though Terraform was kept from finishing it")
            await self._terraform.count_as_whole(name)
        return {**state, **dict.fromkeys(living, True)}

    async def _look(self, outcome: Outcome) -> Outcome:
        """Finds out what exists now; after a destroy, makes sure that nothing of the destroyed remains."""
        try:
            self._terraform.cancel = asyncio.Event()
            state = await self._recognise(await self._terraform.list_vms())
        except (LabLinkError, OSError, ValueError) as exc:
            logger.warning("the state of pool %s cannot be read: %s", self._run.pool.name, exc)
            return outcome
        try:
            await self._remove_rest(outcome, state)
        except LabLinkError as exc:
            # Who can tell what is left? Only what Terraform itself reported as gone counts as gone.
            reasons = dict.fromkeys((exc.message, outcome.reason or ""))
            outcome.status, outcome.reason = OperationStatus.FAILED, " ".join(reasons).strip()
        return outcome

    async def _remove_rest(self, outcome: Outcome, state: Mapping[str, bool]) -> None:
        whole = frozenset(name for name, is_whole in state.items() if is_whole)
        if self._run.kind is OperationKind.DESTROY:
            # Half-made or not, what is in the state was not taken away.
            await self._provider.remove_leftovers(self._run.targets - frozenset(state))
            outcome.existing = frozenset(state)
        else:
            outcome.existing = whole
            outcome.removed = await self._remove_unmade(whole)

    async def _remove_unmade(self, whole: frozenset[str]) -> frozenset[str]:
        """Nothing may linger of what does not count as made. What sent a heartbeat by now may be in use already."""
        removed = set()
        for hostname in sorted(self._run.targets - whole):
            if hostname not in await self._list_living():
                await self._provider.remove_leftovers([hostname])
                removed.add(hostname)
        return frozenset(removed)

    async def _list_living(self) -> frozenset[str]:
        return await self._until_answered(lambda: runs.list_living(self._db, self._run.pool.id))

    async def _finish(self, outcome: Outcome) -> None:
        await runs.finish_run(
            self._db,
            self._run.operation_id,
            owner=self._worker.owner,
            status=outcome.status,
            reason=outcome.reason,
            existing=outcome.existing,
            removed=outcome.removed,
        )

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(LEASE_LOOK_S)
            try:
                if await runs.renew_lease(self._db, self._run.operation_id, owner=self._worker.owner):
                    self._cancel.set()
            except LeaseLost:
                self._is_lost = True
                self._cancel.set()
                return
            except Unavailable:
                # Terraform goes on without the database; the lease is renewed when it is back.
                continue

    async def _until_answered(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Tries until Postgres answers: what Terraform did must be written down however long that takes."""
        while True:
            try:
                return await ask()
            except Unavailable:
                await asyncio.sleep(LEASE_LOOK_S)


@asynccontextmanager
async def _alone(lock: Path) -> AsyncIterator[None]:
    """One at a time of all processes that share the data directory; ends with the process, however that ends."""
    with lock.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOCK_LOOK_S)
        yield
