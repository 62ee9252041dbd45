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
        # How many tokens are being asked for; how many things were said, which of them was the last about all, and
        # since then, for those who ask, the last about a VM.
        self._asked, self._said, self._said_of_all = 0, 0, 0
        self._said_of: dict[int, int] = {}
        listener.subscribe(self._note, on_gap=self.forget_all, on_lost=self.forget_all)

    async def authenticate(self, token: str) -> AgentIdentity:
        """The VM behind an agent token.

        Raises:
            Unauthenticated: the token is unknown or revoked, or its VM is gone.
        """
        if known := self.recall(token):
            return known
        said = self._said
        self._asked += 1
        try:
            identity = await authenticate_agent(self._db, token)
            # Kept only if nothing was said of it meanwhile, and only while somebody would tell us.
            if self._listener.connected and self._said_of.get(identity.vm_id, self._said_of_all) <= said:
                self._known[hash_token(token)] = (time.monotonic() + KEPT_S, identity)
            return identity
        finally:
            self._asked -= 1
            if not self._asked:
                self._said_of.clear()

    def recall(self, token: str) -> AgentIdentity | None:
        """The VM behind a token, if it is remembered."""
        until, identity = self._known.get(hash_token(token), (0.0, None))
        return identity if time.monotonic() < until else None

    def forget(self, *vm_ids: int) -> None:
        """Asks again for the tokens of these VMs."""
        self._said += 1
        if self._asked:
            self._said_of.update(dict.fromkeys(vm_ids, self._said))
        gone = [key for key, (_, identity) in self._known.items() if identity.vm_id in vm_ids]
        for key in gone:
            del self._known[key]

    def forget_all(self) -> None:
        """Asks again for every token."""
        self._said += 1
        self._said_of_all = self._said
        self._said_of.clear()
        self._known.clear()

    def _note(self, notice: Notice) -> None:
        if notice.table == "enrolments" and notice.parents:
            self.forget(*notice.parents)
