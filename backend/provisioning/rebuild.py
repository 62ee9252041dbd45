"""Rebuilding a pool's state: whatever it holds, afterwards it says what exists. No machine is touched."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from backend.errors import LabLinkError
from backend.provisioning.machines import HeldState, Machine, StateUnreadable, parse_state
from backend.provisioning.output import VM_RESOURCE
from backend.provisioning.planned import PlannedChange
from backend.provisioning.process import end_leftover
from backend.provisioning.providers import Provider, ProviderVm
from backend.provisioning.providers.facts import Imports
from backend.provisioning.runner import TerraformRunner, write_private
from backend.services.findings import HOSTNAME
from backend.services.views import PoolView

IMPORTS = "imports.tf.json"


class RebuildRefused(LabLinkError):
    """It would have touched a machine; nothing was changed."""

    code = "rebuild_refused"


async def rebuild_state(
    terraform: TerraformRunner,
    provider: Provider,
    pool: PoolView,
    *,
    init: Callable[[], Awaitable[None]],
    at: datetime,
    say: Callable[[str, str], None],
) -> None:
    """Takes what exists and is missing into the state, and leaves out what is gone.

    Raises:
        RebuildRefused, TerraformFailed, TerraformCancelled, PlanUnclear
        LabLinkError: the provider cannot be asked, or cannot do this.
    """
    await end_leftover(terraform.directory, grace_s=terraform.grace_s)
    held = await _read(provider, pool, at, say)
    found = await provider.facts.find_machines([each.id for each in held.vms.values()])
    machines = _choose(held, [each for each in found or () if each.is_ours and each.pool == pool.name])
    imports = await provider.facts.find_imports(pool, machines)
    await init()
    inputs = provider.write_inputs(terraform.directory, pool, [ProviderVm(each.hostname) for each in machines])
    terraform.environment = {**provider.environment, **inputs.environment}
    # What machines share is only there for as long as there is one.
    missing = _missing(held, imports) if machines else {}
    say("info", f"{len(machines)} machines exist; {len(missing)} resources are taken into the state")
    with importing(terraform.directory, missing):
        _check(await terraform.plan({**inputs.tfvars, **imports.tfvars}, parallelism=inputs.parallelism))
        await terraform.apply(parallelism=inputs.parallelism)


async def find_unrecorded(provider: Provider, pool: PoolView, hostnames: Collection[str]) -> Imports:
    """What exists of these VMs, and of what the pool's VMs share, but is not in its state.

    Raises:
        StateUnreadable: what is in it cannot be known.
        LabLinkError: the provider cannot be asked.
    """
    held = parse_state(await provider.facts.read_state(pool)) or HeldState()
    found = await provider.facts.find_machines()
    if found is None:
        return Imports({})
    ours = [each for each in found if each.is_ours and each.pool == pool.name and each.hostname in hostnames]
    machines = _choose(held, [each for each in ours if each.hostname not in held.vms])
    imports = await provider.facts.find_imports(pool, machines)
    return replace(imports, ids=_missing(held, imports), hostnames=frozenset(each.hostname for each in machines))


@contextmanager
def importing(directory: Path, ids: Mapping[str, str]) -> Iterator[None]:
    """While it lasts, a plan takes these resources into the state: their ids by address."""
    file = directory / IMPORTS
    blocks = [{"to": address, "id": name} for address, name in sorted(ids.items())]
    try:
        write_private(file, json.dumps({"import": blocks} if blocks else {}))
        yield
    finally:
        file.unlink(missing_ok=True)


def _missing(held: HeldState, imports: Imports) -> dict[str, str]:
    return {address: name for address, name in imports.ids.items() if address not in held.addresses}


async def _read(provider: Provider, pool: PoolView, at: datetime, say: Callable[[str, str], None]) -> HeldState:
    """The state as it is; one that cannot be read is put aside, never away."""
    content = await provider.facts.read_state(pool)
    try:
        return parse_state(content) or HeldState()
    except StateUnreadable as exc:
        suffix = f"broken-{at:%Y%m%dT%H%M%SZ}"
        await provider.facts.put_state_aside(pool, suffix)
        say("warn", f"{exc.message} It was put aside as .{suffix}")
        return HeldState()


def _choose(held: HeldState, machines: Sequence[Machine]) -> list[Machine]:
    """One machine for each hostname: the one that the state holds, else the oldest."""
    chosen: dict[str, Machine] = {}
    named = [each for each in machines if HOSTNAME.fullmatch(each.hostname)]
    for each in sorted(named, key=lambda machine: machine.started_at, reverse=True):
        kept = held.vms.get(each.hostname)
        before = chosen.get(each.hostname)
        if before is None or kept is None or before.id != kept.id:
            chosen[each.hostname] = each
    return sorted(chosen.values(), key=lambda each: each.hostname)


def _check(changes: Iterable[PlannedChange]) -> None:
    touched = [
        f"{each.action} {each.key}"
        for each in changes
        if each.name == VM_RESOURCE and each.action not in {"import", "move"}
    ]
    if touched:
        raise RebuildRefused(f"The state cannot be rebuilt without touching machines: it would {', '.join(touched)}.")
