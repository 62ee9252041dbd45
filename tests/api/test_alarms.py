"""The bell by API: what rings is listed, whoever runs the workshop acknowledges it, whoever only looks does not."""

from __future__ import annotations

from backend.services.alarm_rules import Seen
from backend.services.alarms import record_own
from backend.services.api_tokens import create_api_token
from backend.setting_keys import AlarmSettings
from backend.states import AlarmKind, Role, Severity
from tests.harness.pools import database_of
from tests.harness.server import Server
from tests.services.worlds import ADMIN

LIMITS = AlarmSettings(quiet_s=0)
FULL = Seen(AlarmKind.SERVER, "by API", Severity.CRITICAL, "The disk of rack by API is full.", "Make room.")


async def test_an_alarm_is_listed_acknowledged_once_and_found_among_the_resolved(shared_server: Server) -> None:
    async def find(resolved: int = 0) -> dict:
        answer = await shared_server.api.get(f"/api/admin/alarms?resolved={resolved}")
        assert answer.status_code == 200, answer.text
        return next((each for each in answer.json()["alarms"] if each["sentence"] == FULL.sentence), {})

    async with database_of(shared_server) as db:
        secrets = {
            role: (await create_api_token(db, f"bell-{role}", role, actor=ADMIN))[1]
            for role in (Role.VIEWER, Role.OPERATOR)
        }
        await record_own(db, "rack:by-api", [FULL], LIMITS)
        alarm = await find()
        assert (alarm["kind"], alarm["severity"], alarm["place"]) == ("server", "critical", "/admin/alarms")
        for role, status in ((Role.VIEWER, 403), (Role.OPERATOR, 200)):
            async with shared_server.client(token=secrets[role]) as client:
                answer = await client.post("/api/admin/alarms/acknowledge", json={"ids": [alarm["id"], 2**62]})
                assert answer.status_code == status
        assert answer.json() == {"acknowledged": 1}
        assert (await find())["acknowledged_by"] == f"admin:token:bell-{Role.OPERATOR}"
        await record_own(db, "rack:by-api", [], LIMITS)
    assert await find() == {}
    assert (await find(resolved=50))["resolved_at"] is not None


async def test_nothing_is_acknowledged_by_a_body_that_is_wrong(shared_server: Server) -> None:
    for body in ({}, {"ids": []}, {"ids": ["1"]}, {"ids": [0]}, {"ids": [1], "all": True}):
        answer = await shared_server.api.post("/api/admin/alarms/acknowledge", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid")
