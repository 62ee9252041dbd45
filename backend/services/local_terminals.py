"""Terminals of local machines: shells on the server's own computer, so only for those who sit at it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from backend.errors import Conflict
from backend.states import PoolStatus

RULE = (
    "a pool with provider local offers a terminal only while the server is for its own computer alone (server.host, "
    "server.public_url)"
)


class _Offer(Protocol):
    @property
    def provider(self) -> str: ...

    @property
    def terminal(self) -> bool: ...


class _Pool(_Offer, Protocol):
    @property
    def name(self) -> str: ...

    @property
    def status(self) -> PoolStatus: ...


def is_local_terminal(pool: _Offer) -> bool:
    """Whether it offers terminals on the server's own computer."""
    return pool.terminal and pool.provider == "local"


def check_host(address: str, pools: Iterable[_Pool], first: _Offer | None) -> None:
    """Refuses to serve more than this computer; ``first`` is the pool that this start would make.

    ``address`` is the setting by which others get in.

    Raises:
        Conflict: an open pool offers a terminal on the server's own computer; says which key to change.
    """
    what = f"{address}: whoever gets a seat would get a shell on this computer"
    if first is not None and is_local_terminal(first):
        raise Conflict(f"{what}. Set pool.default.terminal=false, or serve this computer alone.")
    for pool in pools:
        if is_local_terminal(pool) and pool.status == PoolStatus.OPEN:
            raise Conflict(
                f"{what}, by the terminal of the open pool '{pool.name}' (provider local). Start once for "
                "this computer alone and take the terminal from the pool, or close it."
            )
