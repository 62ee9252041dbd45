"""Agent tokens: whom each speaks for, among hundreds that are shown at the same moment, and for how long it is kept."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from backend.db.engine import Database
from backend.errors import Revoked, Unauthenticated
from backend.live import agent_tokens
from backend.live.agent_tokens import AgentTokens
from backend.services.destroys import request_destroy
from backend.services.enrolments import AgentIdentity, announce_boot, authenticate_agent, create_enrolments
from backend.services.pools import PoolSpec, ensure_pool
from backend.services.tokens import new_token
from backend.services.vms import get_vm
from tests.services.worlds import ADMIN, Listener, obey


async def enrol(db: Database, count: int) -> list[str]:
    """The tokens of as many agents."""
    await ensure_pool(db, "lab", PoolSpec(), actor=ADMIN)
    tokens = []
    for number, token in enumerate(await create_enrolments(db, "lab", count, actor=ADMIN)):
        enrolled = await announce_boot(db, token, hostname=f"lab-{number}", boot_id="boot-1", agent_version="1")
        tokens.append(enrolled.agent_token or "")
    return tokens


async def test_of_tokens_shown_at_the_same_moment_each_has_its_own_answer(db: Database) -> None:
    tokens = await enrol(db, 20)
    await request_destroy(db, ["lab-3"], actor=ADMIN)
    await obey(db, (await get_vm(db, "lab-3")).id)
    shown = [*tokens, new_token(), *tokens]
    answers = await asyncio.gather(*(authenticate_agent(db, token) for token in shown), return_exceptions=True)
    for number, answer in enumerate(answers):
        if number == 20:
            assert type(answer) is Unauthenticated
        elif number % 21 == 3:
            assert isinstance(answer, Revoked)
        else:
            assert isinstance(answer, AgentIdentity)
            assert answer.hostname == f"lab-{number % 21}"


@pytest.mark.parametrize(
    ("said_of", "is_kept"), [("itself", False), ("another", True), ("whom nobody knows", False)], ids=str
)
async def test_what_is_said_of_others_while_a_token_is_asked_for_does_not_end_its_memory(
    db: Database, monkeypatch: pytest.MonkeyPatch, said_of: str, is_kept: bool
) -> None:
    token, other = await enrol(db, 2)
    another = (await authenticate_agent(db, other)).vm_id
    listener = Listener()
    tokens = AgentTokens(db, listener)

    async def authenticate(db: Database, token: str) -> AgentIdentity:
        identity = await authenticate_agent(db, token)
        if said_of == "whom nobody knows":
            listener.miss()
        else:
            listener.say("enrolments", identity.vm_id if said_of == "itself" else another)
        return identity

    monkeypatch.setattr(agent_tokens, "authenticate_agent", authenticate)
    identity = await tokens.authenticate(token)
    assert tokens.recall(token) == (identity if is_kept else None)
    # What is kept lasts until something is said of it.
    monkeypatch.undo()
    assert await tokens.authenticate(token) == identity
    listener.say("enrolments", another)
    assert tokens.recall(token) == identity
    listener.say("enrolments", identity.vm_id)
    assert tokens.recall(token) is None


async def test_what_is_said_of_machines_while_nobody_asks_for_a_token_is_not_kept(db: Database) -> None:
    listener = Listener()
    AgentTokens(db, listener)
    tracemalloc.start()
    try:
        for vm_id in range(1_000, 11_000):
            listener.say("enrolments", vm_id)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000
