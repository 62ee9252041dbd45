"""Who a researcher is, where a pool asks the organisation: a sealed cookie, good for one browser and one day's work."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from backend.api.auth import is_secure
from backend.api.cookies import clear_cookie, named, set_cookie
from backend.house import House
from backend.oidc import Vouched

PERSON_HOURS = 8
MAX_GROUPS = 20
_NAME = "lablink-person"


@dataclass(frozen=True, slots=True)
class Person:
    """Whom the organisation vouched for in this browser. ``groups`` holds those only that some pool asks for."""

    subject: str
    email: str
    groups: frozenset[str]

    def may_join(self, oidc_group: str | None) -> bool:
        """Whether this person is in the group that a pool asks for, if it asks for one."""
        return oidc_group is None or oidc_group in self.groups


def find_person(request: Request, house: House) -> Person | None:
    """The person that this browser proved within the last eight hours, if any."""
    sealed = request.cookies.get(named(_NAME, secure=is_secure(house)), "")
    opened = house.keys.unseal(sealed) if sealed else None
    owner_hash: bytes | None = getattr(request.state, "owner_hash", None)
    if opened is None or owner_hash is None or house.oidc is None:
        return None
    said = json.loads(opened)
    if said.get("kind") != _NAME or said["issuer"] != house.oidc.issuer or said["until"] <= house.db.now().timestamp():
        return None
    # A copied cookie is worth nothing in another browser.
    if said["browser"] != owner_hash.hex():
        return None
    return Person(said["subject"], said["email"], frozenset(said["groups"]))


def set_person(
    response: Response, request: Request, house: House, vouched: Vouched, *, asked_groups: Collection[str]
) -> None:
    """Remembers in this browser whom the provider vouched for; of the groups only what pools ask for."""
    owner_hash: bytes = request.state.owner_hash
    said = {
        "kind": _NAME,
        "issuer": vouched.issuer,
        "subject": vouched.subject,
        "email": vouched.email,
        "groups": sorted(vouched.groups & frozenset(asked_groups))[:MAX_GROUPS],
        "browser": owner_hash.hex(),
        "until": house.db.now().timestamp() + PERSON_HOURS * 3_600,
    }
    name = named(_NAME, secure=is_secure(house))
    set_cookie(
        response, name, house.keys.seal(json.dumps(said)), max_age_s=PERSON_HOURS * 3_600, secure=is_secure(house)
    )


def forget_person(response: Response, house: House) -> None:
    """Forgets who uses this browser."""
    clear_cookie(response, named(_NAME, secure=is_secure(house)), secure=is_secure(house))
