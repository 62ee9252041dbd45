"""The cookie that proves a researcher: whose it is, for how long, in which browser."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.responses import Response
from starlette.requests import Request

from backend.api.person import PERSON_HOURS, find_person, set_person
from backend.keys import KeyRing, new_key
from backend.oidc import Provider, Vouched
from backend.services.tokens import hash_token
from backend.setting_keys import OidcSettings
from backend.settings import Settings

ISSUER = "https://id.lab.org"
KIM = Vouched(ISSUER, "s-1", "kim@lab.org", "kim", frozenset({"course-1", "course-2"}))


@pytest.fixture
def house(clock) -> Any:
    """As much of a house as knows about people."""
    settings = Settings(oidc=OidcSettings(issuer=ISSUER, client_id="x"))
    keys, provider = KeyRing([new_key()]), Provider(settings.oidc, None)
    return SimpleNamespace(settings=settings, keys=keys, oidc=provider, db=SimpleNamespace(now=clock))


def request_of(browser: str, cookie: str | None = None) -> Request:
    headers = [(b"cookie", f"lablink-person={cookie}".encode())] if cookie else []
    return Request({"type": "http", "headers": headers, "state": {"owner_hash": hash_token(browser)}})


def proven(house, browser: str = "mine", vouched: Vouched = KIM) -> str:
    response = Response()
    set_person(response, request_of(browser), house, vouched, asked_groups={"course-1", "course-9"})
    cookie = response.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=Lax", f"Max-Age={PERSON_HOURS * 3_600}"))
    return cookie.partition(";")[0].partition("=")[2]


def test_a_person_is_known_by_subject_and_email_and_by_the_groups_that_pools_ask_for(house) -> None:
    person = find_person(request_of("mine", proven(house)), house)
    assert person is not None
    assert (person.subject, person.email, person.groups) == ("s-1", "kim@lab.org", {"course-1"})
    assert [person.may_join(group) for group in (None, "course-1", "course-2", "course-9")] == [
        True,
        True,
        False,
        False,
    ]


def test_the_cookie_is_worth_nothing_elsewhere_later_or_changed(house, clock) -> None:
    cookie = proven(house)
    assert find_person(request_of("mine"), house) is None
    assert find_person(request_of("thief", cookie), house) is None
    assert find_person(request_of("mine", cookie[:-3] + "AAA"), house) is None
    assert find_person(request_of("mine", house.keys.seal('{"kind": "lablink-oidc"}')), house) is None
    clock.advance(PERSON_HOURS * 3_600 - 60)
    assert find_person(request_of("mine", cookie), house) is not None
    clock.advance(120)
    assert find_person(request_of("mine", cookie), house) is None


def test_a_person_outlives_a_rotation_of_the_keys_but_not_another_provider(house) -> None:
    former = new_key()
    house.keys = KeyRing([former])
    cookie = proven(house)
    house.keys.take_over(KeyRing([new_key(), former]))
    assert find_person(request_of("mine", cookie), house) is not None
    house.oidc = Provider(OidcSettings(issuer="https://id.other.org", client_id="x"), None)
    assert find_person(request_of("mine", cookie), house) is None
