"""Secrets are written everywhere they can be, and found nowhere afterwards."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import websockets
from sqlalchemy import text

from backend.logs import JsonFormatter, TextFormatter
from backend.models import Operation
from backend.redaction import STRUCK, redact
from backend.services.actor import Actor
from backend.services.moves import record_event
from backend.services.pools import get_pool
from backend.services.runs import LogLine, record_log
from backend.services.tokens import new_token
from backend.states import OperationKind, OperationStatus
from tests.harness.agents import enrol, join, make_tokens
from tests.harness.forms import sign_in
from tests.harness.pools import database_of
from tests.harness.server import API_TOKEN, PASSWORD, Server
from tests.harness.waiting import until

CODE = "4/0AeaYSHCkvGXtfYhEWd6iAbcDEF_ghi-jkl"
# As `new_token` makes them; the same one each time, since it is part of the names of tests.
TOKEN = "5V0vtnL8n4_DdPImcYheftx47wuI_IGHfkmYXbG1mpk"
MARK = "a-word-that-may-stand-anywhere"
# Where people's and programs' words are kept: whole rows, as text.
TABLES = ("vm_logs", "operation_logs", "events", "commands", "latest_heartbeats", "vms", "claims", "operations")


def written(token: str) -> list[str]:
    """One secret in the ways in which programs write it."""
    return [
        f"Authorization: Bearer {token}",
        f"(b'cookie', b'lablink-session={token}')",
        f"{{'lablink-browser': '{token}'}}",
        f"__Host-lablink-person={token}; Path=/",
        f"GET /_nicegui_ws/socket.io/?EIO=4&client_id={token}&transport=websocket",
        f"https://lab.example.org/seat/open/{token}",
        f"https://lab.example.org/invite/{token}?x=1",
        f"postgresql+psycopg://lablink:{token}@db.example.org:5432/lablink",
        f"LABLINK_ENROLMENT_TOKEN={token} LABLINK_OIDC_CLIENT_SECRET='{token}'",
        f'{{"agent_token": "{token}", "password": "{token}"}}',
        f"/oidc/callback?code={token}&state={token}",
        f"start-host --pin={token} --name=x",
    ]


@pytest.mark.parametrize("line", ['{"password": "three short words"}', "password='three short words'",
                                  r'"{\"api_token\": \"three short words\"}"'])  # fmt: skip
def test_a_quoted_secret_goes_with_all_its_words(line: str) -> None:
    assert "words" not in redact(line)


ALONE = [f'--code="{CODE}"', f"code={CODE.replace('/', '%2F')}", f"a token {TOKEN} alone", TOKEN]


@pytest.mark.parametrize("line", [*written("short-1"), *written(TOKEN), *ALONE])
def test_a_line_with_a_secret_keeps_all_but_the_secret(line: str) -> None:
    struck = redact(f"{MARK} {line} {MARK}")
    assert STRUCK in struck
    assert struck.startswith(MARK)
    assert struck.endswith(MARK)
    assert not any(secret in struck for secret in ("short-1", CODE, CODE[2:]))
    assert not [word for word in line.replace("=", " ").replace("/", " ").split() if len(word) == 43 and word in struck]


@pytest.mark.parametrize(
    "line",
    [
        "the password is wrong", "exit code 1", "took 4/5 of a second", "default-001 is in-use", "3 tokens: all spent",
        "sha256 " + "0a1b2c3d" * 8, "https://lab.example.org:8443/admin/instances", "ada@lab.org sits at default-001",
        "/a/path/that/is-quite-long-and-has-no-secret-in-it/at/all", "Bearer of good news", "pinned to 1.2",
    ],
)  # fmt: skip
def test_a_line_without_one_stays_as_it_is(line: str) -> None:
    assert redact(line).replace(f"Bearer {STRUCK}", "Bearer of") == line


@pytest.mark.parametrize("formatter", [TextFormatter((API_TOKEN, PASSWORD)), JsonFormatter((API_TOKEN, PASSWORD))])
def test_a_crash_with_a_secret_in_its_message_is_logged_without_it(formatter: logging.Formatter) -> None:
    token = new_token()
    try:
        raise ValueError(f"{MARK} {token} {API_TOKEN} {PASSWORD}")
    except ValueError as exc:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "failed with %s", (token,), (type(exc), exc, None))
    said = formatter.format(record)
    assert MARK in said
    assert not any(secret in said for secret in (token, API_TOKEN, PASSWORD))
    if isinstance(formatter, JsonFormatter):
        assert json.loads(said)["level"] == "error"


async def test_what_is_written_everywhere_is_found_nowhere(start_server) -> None:
    server = await start_server("log.level=debug")
    async with server.client() as client, server.client() as admin, server.client() as plain:
        (agent,) = await join(server, client, 1, prefix="leaky")
        spent, fresh, unknown = *await make_tokens(server, 2), new_token()
        await enrol(client, spent, "leaky-2")
        await sign_in(admin)
        await sign_in(client, password=f"wrong {unknown}")
        await sign_in(client, user=f"my password {unknown}")
        cookies = [*admin.cookies.values()]
        claimed = await plain.post("/api/request_vm", json={"email": "ada@lab.org", "pool": "default"})
        link = claimed.json()["seat_url"].rpartition("/")[2]
        secrets = [API_TOKEN, agent.token, spent, fresh, unknown, link, CODE[2:], *cookies]
        for path in ("/api/admin/instances", "/api/commands", f"/seat/open/{link}x", f"/invite/{unknown}"):
            await client.get(path, headers={"Authorization": f"Bearer {unknown}"})
        await agent_says(agent, [line for secret in secrets for line in written(secret)] + [CODE, MARK])
        await open_socket(server, cookies[0], unknown)
        assert await crash(server, admin, unknown) == 500
        await write_history(server, secrets)
        await client.get(f"/seat/open/{link}")
        await until(lambda: is_kept(server, MARK), what="the heartbeat is stored")
        places = {str(path): path.read_text(errors="replace") for path in logs_of(server)} | await rows_of(server)
    # It would be found: what is no secret is.
    assert all(
        MARK in places[name] for name in ("vm_logs", "operation_logs", "events", "commands", "latest_heartbeats")
    )
    assert "Traceback" in places[str(server.log)]
    secrets.append(PASSWORD)
    assert [(place, secret) for place, said in places.items() for secret in secrets if secret in said] == []


async def agent_says(agent, lines: list[str]) -> None:
    """An agent lets out all it can: in logs, reasons and results."""
    answer = await agent.client.post("/api/logs", json={"source": "boot", "lines": lines}, headers=agent.headers)
    assert answer.status_code == 200
    command, *_ = await agent.list_commands()
    await agent.finish(command["id"], "failed", f"{MARK} {agent.token} --code={CODE}")
    await agent.beat(health="degraded", reasons=[f"{MARK} {agent.token}", f"--code={CODE}"])


async def open_socket(server: Server, cookie: str, client_id: str) -> None:
    """A page's socket, as a browser opens it."""
    url = f"ws://127.0.0.1:{server.port}/_nicegui_ws/socket.io/?EIO=4&transport=websocket&client_id={client_id}"
    headers = {"Cookie": f"lablink-browser={cookie}"}
    async with websockets.connect(url, additional_headers=headers, proxy=None) as socket:
        await socket.recv()


async def crash(server: Server, admin, secret: str) -> int:
    """A defect: a table is gone, and a statement with secrets in it fails."""
    async with database_of(server) as db:
        async with db.transaction() as session:
            await session.execute(text("ALTER TABLE api_tokens RENAME TO api_tokens_gone"))
        answer = await admin.get("/api/admin/instances", headers={"Authorization": f"Bearer {secret}"})
        async with db.transaction() as session:
            await session.execute(text("ALTER TABLE api_tokens_gone RENAME TO api_tokens"))
    return answer.status_code


async def write_history(server: Server, secrets: list[str]) -> None:
    """Terraform and events say them too."""
    async with database_of(server) as db:
        pool, at = await get_pool(db, "default"), db.now()
        async with db.transaction() as session:
            values = {"pool_id": pool.id, "kind": OperationKind.LAUNCH, "status": OperationStatus.FAILED}
            operation = Operation(**values, requested_by="test", created_at=at, finished_at=at)
            session.add(operation)
        lines = [LogLine(db.now(), "info", line) for secret in secrets for line in written(secret)]
        await record_log(db, operation.id, [*lines, LogLine(db.now(), "info", MARK)])
        async with db.transaction() as session:
            for line in [MARK, *(line for secret in secrets for line in written(secret))]:
                record_event(session, "test.said", line, actor=Actor.admin("test"), at=db.now())


async def is_kept(server: Server, words: str) -> bool:
    return words in (await rows_of(server))["latest_heartbeats"]


def logs_of(server: Server) -> list[Path]:
    return [server.log, *(path for path in server.home.rglob("*log*") if path.is_file() and "pg_" not in str(path))]


async def rows_of(server: Server) -> dict[str, str]:
    async with database_of(server) as db, db.transaction() as session:
        return {
            table: "\n".join(await session.scalars(text(f"SELECT row::text FROM {table} AS row"))) for table in TABLES
        }
