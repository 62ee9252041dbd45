"""Agent tokens: a short memory of who they speak for, since agents show theirs with every heartbeat."""

from __future__ import annotations

import time

from backend.db.engine import Database
from backend.db.notices import Notice, NoticeListener
from backend.services.enrolments import AgentIdentity, authenticate_agent
from backend.services.tokens import hash_token

# Notices end a memory; this is for one that was lost without a trace. Far longer than agents pause between heartbeats.
KEPT_S = 300.0


class AgentTokens:
    """Remembers valid tokens (by hash) until a notice says that their VM or enrolment changed."""

    def __init__(self, db: Database, listener: NoticeListener) -> None:
        self._db = db
        self._listener = listener
        self._known: dict[bytes, tuple[float, AgentIdentity]] = {}
        self._version = 0
        listener.subscribe(self._note, on_gap=self.forget_all, on_lost=self.forget_all)

    async def authenticate(self, token: str) -> AgentIdentity:
        """The VM behind an agent token.

        Raises:
            Unauthenticated: the token is unknown or revoked, or its VM is gone.
        """
        if known := self.recall(token):
            return known
        version = self._version
        identity = await authenticate_agent(self._db, token)
        # Kept only if nothing was said meanwhile, and only while somebody would tell us.
        if self._listener.connected and version == self._version:
            self._known[hash_token(token)] = (time.monotonic() + KEPT_S, identity)
        return identity

    def recall(self, token: str) -> AgentIdentity | None:
        """The VM behind a token, if it is remembered."""
        until, identity = self._known.get(hash_token(token), (0.0, None))
        return identity if time.monotonic() < until else None

    def forget(self, *vm_ids: int) -> None:
        """Asks again for the tokens of these VMs."""
        self._version += 1
        gone = [key for key, (_, identity) in self._known.items() if identity.vm_id in vm_ids]
        for key in gone:
            del self._known[key]

    def forget_all(self) -> None:
        """Asks again for every token."""
        self._version += 1
        self._known.clear()

    def _note(self, notice: Notice) -> None:
        if notice.table == "enrolments" and notice.parents:
            self.forget(*notice.parents)
