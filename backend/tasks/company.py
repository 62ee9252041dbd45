"""Whether the processes that share this database fit each other: their keys, and where Terraform's states lie."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from backend.db.engine import Database
from backend.db.presence import Presence
from backend.errors import Conflict
from backend.keys import KeyRing
from backend.provisioning.providers import Provider
from backend.services.pools import list_pools
from backend.services.vms import list_terraform_hostnames
from backend.settings import Settings

# First keys of the two-key advisory locks by which processes know each other's keys and data directories.
KEYS_MARK, HOME_MARK = 7_426_006, 7_426_007
_FILE = "directory-id"


def make_presence(conninfo: str, settings: Settings, keys: KeyRing | None = None, *, may_lead: bool = True) -> Presence:
    """This process's presence. Of the keys nothing is shown but whether two rings have one in common."""
    marks = {KEYS_MARK: keys.names if keys else (), HOME_MARK: [_id_of(settings.home)]}
    return Presence(conninfo, marks, may_lead=may_lead)


async def check_company(presence: Presence, db: Database, providers: Mapping[str, Provider]) -> None:
    """Makes sure that this process may work beside those that are there.

    Raises:
        Conflict: it would refuse what the others signed, or know nothing of the machines that they made.
    """
    others = await presence.list_others()
    keys, home = presence.marks[KEYS_MARK], presence.marks[HOME_MARK]
    for other in others:
        theirs = other.get(KEYS_MARK, frozenset())
        if keys and theirs and not keys & theirs:
            raise Conflict(
                "Another LabLink process with this database has other keys: neither would take what the other signed. "
                "Give all of them the same LABLINK_KEYS (or the same LABLINK_HOME, on one computer).",
                code="other_keys",
            )
    if any(other.get(HOME_MARK) != home for other in others):
        await _check_states(db, providers)


async def _check_states(db: Database, providers: Mapping[str, Provider]) -> None:
    for pool in await list_pools(db):
        provider = providers.get(pool.provider)
        if provider is None or provider.backend_of(pool) is not None:
            continue
        if await list_terraform_hostnames(db, pool.provider):
            raise Conflict(
                f"Pool {pool.name} keeps its machines' state in a data directory, and another LabLink process with "
                "this database has another one. Give all of them the same LABLINK_HOME (on one computer), or keep the "
                "states elsewhere (aws.state_bucket).",
                code="other_home",
            )


def _id_of(home: Path) -> str:
    """A name for the data directory, made once: paths and hosts do not tell two apart, or one from itself."""
    path = home / _FILE
    if not path.exists():
        # There it is at once whole: whoever starts at the same moment must not read an empty name.
        with tempfile.NamedTemporaryFile("w", dir=home, prefix=_FILE, encoding="ascii") as file:
            file.write(str(uuid.uuid4()))
            file.flush()
            with suppress(FileExistsError):
                os.link(file.name, path)
    return path.read_text(encoding="ascii")
