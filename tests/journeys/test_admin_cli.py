"""`lablink admin`: the day when a password is lost, with the server running and stopped."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from backend.db.embedded import EmbeddedPostgres
from backend.db.engine import Database
from backend.db.migrate import migrate
from backend.services.invites import accept_invite
from backend.services.sign_in import ensure_first_admin
from backend.states import Role
from lablink_ui.cli import main
from tests.harness.forms import post_form
from tests.harness.people import PEOPLES_PASSWORD, enter, make_person
from tests.harness.server import LABLINK, PASSWORD, Server

NEW_PASSWORD = "found again, and longer"


class Command:
    """The command within this process (its imports take seconds); returns its status and what it said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    async def __call__(self, home: Path, *words: str) -> tuple[int, str]:
        self._monkeypatch.setenv("LABLINK_HOME", str(home))
        self._capsys.readouterr()
        status = await asyncio.to_thread(main, ["admin", *words])
        return status, "".join(self._capsys.readouterr())


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


async def run_process(home: Path, *words: str) -> tuple[int, str]:
    """The command as people run it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LABLINK_")}
    process = await asyncio.create_subprocess_exec(
        str(LABLINK), "admin", *words, env={**environment, "LABLINK_HOME": str(home)},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


def link_in(said: str) -> str:
    """The secret of the link that was printed."""
    (line,) = [line for line in said.splitlines() if "/invite/" in line and "…" not in line]
    return line.rpartition("/invite/")[2].strip()


async def test_while_the_server_runs_the_command_works_and_leaves_it_running(
    shared_server: Server, command: Command
) -> None:
    name = await make_person(shared_server, Role.VIEWER)
    async with shared_server.client() as browser, shared_server.client() as later:
        await enter(shared_server, browser, name)
        status, said = await run_process(shared_server.home, "list")
        assert status == 0
        assert f"{name:<24} viewer    signed in with 1 browser" in said
        ended = await command(shared_server.home, "revoke-sessions", name)
        assert ended == (0, f"{name} was signed out of 1 browser.\n")
        status, said = await command(shared_server.home, "reset", name, f"server.public_url={shared_server.url}")
        assert status == 0, said
        assert (await browser.get("/api/admin/instances")).status_code == 401
        form = {"password": NEW_PASSWORD, "again": NEW_PASSWORD}
        link = link_in(said)
        assert f"{shared_server.url}/invite/{link}" in said
        await post_form(later, f"/invite/{link}", f"/invite/{link}", **form)
        assert (await enter(shared_server, later, name)).startswith("/login?error=wrong_password")
        assert await enter(shared_server, later, name, NEW_PASSWORD) == "/admin"
    assert (await shared_server.api.get("/readyz")).status_code == 200
    events = (await shared_server.api.get("/api/admin/events?actor=cli:&limit=100")).json()["events"]
    assert {each["kind"] for each in events if name in each["message"]} == {"invite.reset", "user.session_ended"}


async def test_while_the_server_is_stopped_the_command_starts_what_it_needs_and_stops_it_again(
    tmp_path: Path, command: Command
) -> None:
    status, said = await command(tmp_path, "list")
    assert (status, said.count("\n")) == (1, 1)
    assert "no LabLink in" in said
    embedded = EmbeddedPostgres(tmp_path)
    url = await embedded.start()
    await migrate(url)
    db = Database(url)
    await ensure_first_admin(db, PASSWORD)
    await db.close()
    await embedded.stop()

    status, said = await run_process(tmp_path, "invite", "kim", "--role", "admin")
    assert status == 0, said
    assert not embedded.is_running()
    for words, code in (
        (("disable", "admin"), "last admin"),
        (("reset", "nobody"), "no user named 'nobody'"),
        (("invite", "admin"), "already"),
    ):
        status, refusal = await command(tmp_path, *words)
        assert (status, refusal.count("\n")) == (1, 1), refusal
        assert code in refusal
    db = Database(await embedded.start())
    try:
        assert await accept_invite(db, link_in(said), PEOPLES_PASSWORD) == "kim"
        # Postgres ran already, but no server: as after a crash, the command leaves nothing behind.
        assert await command(tmp_path, "disable", "admin") == (0, "admin is disabled.\n")
    finally:
        await db.close()
    assert not embedded.is_running()


def test_the_command_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["invite"], ["invite", "kim", "--role", "god"], ["destroy", "kim"]):
        with pytest.raises(SystemExit) as end:
            main(["admin", *words])
        assert end.value.code == 2
        assert "usage: lablink admin" in capsys.readouterr().err
