"""Holders: who may act on a seat. Checked in the very transaction that acts, since pages outlive what they show."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from backend.errors import NotFound
from backend.models import Claim
from backend.services.actor import Actor
from backend.services.seat_browsers import holds
from backend.services.sessions import lock_claim


@dataclass(frozen=True, slots=True)
class Holder:
    """A browser in which the seat is open, or a program that has the seat's key."""

    owner_hash: bytes | None = None
    key_hash: bytes | None = None
    address: str | None = None


async def lock_held(session: AsyncSession, claim_id: int, holder: Holder) -> Claim:
    """The claim, locked after its VM, if it is this holder's.

    Raises:
        NotFound: it is not, or not any more; does not say whether there is such a claim.
    """
    claim = await lock_claim(session, claim_id)
    if claim is None or not await _is_held(session, claim, holder):
        raise NotFound("You hold no such seat here, or not any more.")
    return claim


def actor_of(claim: Claim, holder: Holder) -> Actor:
    """Who acts, for the history."""
    return Actor.researcher(claim.email, holder.address)


async def _is_held(session: AsyncSession, claim: Claim, holder: Holder) -> bool:
    if holder.key_hash is not None and claim.key_hash == holder.key_hash:
        return True
    return holder.owner_hash is not None and await holds(session, claim.id, holder.owner_hash)
