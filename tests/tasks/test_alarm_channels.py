"""Alarms on their way out: to real servers that take them, refuse them, hang, or send us elsewhere."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest
from sqlalchemy import text

from backend.db.engine import Database
from backend.services.alarm_deliveries import GIVE_UP_S, LEASE_S, count_waiting, take_deliveries
from backend.services.alarm_rules import Seen
from backend.services.alarms import record_own
from backend.services.events import list_events
from backend.setting_keys import AlarmSettings
from backend.settings import Secrets, Settings
from backend.states import AlarmKind, Channel, Severity
from backend.tasks import alarm_channels, alarm_mail
from backend.tasks.alarm_channels import AlarmChannels

SECRET = "whsec_" + base64.b64encode(b"a key of thirty-two random bytes").decode()
PATH = "/services/T000/B000/a-path-that-is-a-secret"
EVIL = "The disk of <!channel> has 3 % left.\r\nBcc: all@lab.org"


@dataclass
class Answering:
    """A server that answers as it is told, in order (the last one again and again), and keeps what it was told."""

    answers: list[str]
    port: int = 0
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    verbs: list[str] = field(default_factory=list)

    async def serve_http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        self.heard.append(({"request": head[0], **headers}, await reader.readexactly(int(headers["content-length"]))))
        answer = self.next()
        if answer == "hang":
            await reader.read()
        else:
            writer.write(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        writer.close()

    async def serve_smtp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said, answer = {"answer": self.next()}, ""
        answer = said["answer"]
        if answer == "hang":
            await reader.read()
        writer.write(b"220 hello\r\n")
        while line := (await reader.readline()).decode().strip():
            verb = line.split(" ")[0].upper()
            self.verbs.append(verb)
            said[verb] = f"{said.get(verb, '')} {line}".strip()
            if verb == "DATA":
                writer.write(b"354 go on\r\n")
                body = await reader.readuntil(b"\r\n.\r\n")
                self.heard.append((said, body))
                writer.write(f"{answer}\r\n".encode())
            else:
                writer.write(b"221 bye\r\n" if verb == "QUIT" else b"250 fine\r\n")
        writer.close()

    def next(self) -> str:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
async def servers() -> AsyncIterator[list[asyncio.Server]]:
    """Servers that end with the test."""
    made: list[asyncio.Server] = []
    yield made
    for server in made:
        server.close()


async def answering(servers: list[asyncio.Server], *answers: str, smtp: bool = False) -> Answering:
    told = Answering(list(answers))
    servers.append(await asyncio.start_server(told.serve_smtp if smtp else told.serve_http, "127.0.0.1", 0))
    told.port = servers[-1].sockets[0].getsockname()[1]
    return told


def channels(
    db: Database, tmp_path: Path, *, http: Answering | None = None, smtp: Answering | None = None
) -> AlarmChannels:
    alarms = AlarmSettings()
    if smtp:
        alarms.smtp_host, alarms.smtp_port, alarms.smtp_security = "127.0.0.1", smtp.port, "none"
        alarms.email_from, alarms.email_to = "lablink@lab.org", ["kim@lab.org", "lee@lab.org"]
    url = f"http://127.0.0.1:{http.port}{PATH}" if http else None
    secrets = Secrets(webhook_url=url, webhook_secret=SECRET)
    return AlarmChannels(db, Settings(home=tmp_path, secrets=secrets, alarms=alarms))


async def ring(db: Database, names: tuple[Channel, ...]) -> None:
    seen = Seen(AlarmKind.SERVER, "disk", Severity.CRITICAL, EVIL, "Make room.")
    await record_own(db, "here:8080", [seen], AlarmSettings(), names)


async def stored(db: Database) -> list[tuple[str, int, str | None]]:
    async with db.transaction() as session:
        query = text("SELECT status, attempts, last_error FROM alarm_deliveries ORDER BY id")
        return [tuple(row) for row in await session.execute(query)]


async def test_a_webhook_is_signed_as_the_standard_says_and_calls_nobody_by_name(
    db: Database, tmp_path, servers
) -> None:
    http = await answering(servers, "200 OK")
    out = channels(db, tmp_path, http=http)
    await ring(db, out.names)
    await out.send_due(Channel.WEBHOOK)
    ((headers, body),) = http.heard
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = hmac.digest(b"a key of thirty-two random bytes", signed, hashlib.sha256)
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"
    told = json.loads(body)
    assert told["text"].startswith("[critical] The disk of &lt;!channel&gt; has 3 % left.")
    assert told["text"].endswith("Make room. <http://127.0.0.1:8080/admin/alarms|Open>")
    assert (told["alarm"]["news"], told["alarm"]["kind"]) == ("opened", "server")
    assert await stored(db) == [("sent", 1, None)]


async def test_what_was_answered_with_500_is_tried_again_later_by_whoever_runs_then(
    db: Database, tmp_path, servers, clock, caplog
) -> None:
    http = await answering(servers, "500 Internal Server Error", "503 Busy", "200 OK")
    out = channels(db, tmp_path, http=http)
    await ring(db, out.names)
    for pause_s in (5, 10):
        await out.send_due(Channel.WEBHOOK)
        clock.advance(pause_s - 1)
        await out.send_due(Channel.WEBHOOK)
        clock.advance(1)
    assert await stored(db) == [("queued", 2, "the answer was 503")]
    # After a restart nothing is known but what is stored.
    await channels(db, tmp_path, http=http).send_due(Channel.WEBHOOK)
    assert await stored(db) == [("sent", 3, None)]
    assert len({headers["webhook-id"] for headers, _ in http.heard}) == 1
    assert "was not taken" in caplog.text
    assert "a-path-that-is-a-secret" not in caplog.text


async def test_a_redirection_leads_nowhere(db: Database, tmp_path, servers) -> None:
    elsewhere = await answering(servers, "200 OK")
    http = await answering(servers, f"307 Temporary Redirect\r\nLocation: http://127.0.0.1:{elsewhere.port}/metadata")
    out = channels(db, tmp_path, http=http)
    await ring(db, out.names)
    await out.send_due(Channel.WEBHOOK)
    assert elsewhere.heard == []
    assert await stored(db) == [("queued", 1, "the answer was 307")]


async def test_a_webhook_that_hangs_keeps_no_e_mail_waiting(db: Database, tmp_path, servers, monkeypatch) -> None:
    monkeypatch.setattr(alarm_channels, "TRIAL_S", 0.5)
    http, smtp = await answering(servers, "hang"), await answering(servers, "250 taken", smtp=True)
    out = channels(db, tmp_path, http=http, smtp=smtp)
    await ring(db, out.names)
    await asyncio.gather(*(out.send_due(channel) for channel in out.names))
    assert await stored(db) == [("queued", 1, "no answer within 0 s"), ("sent", 1, None)]


async def test_nobody_listens_there(db: Database, tmp_path, servers) -> None:
    http = await answering(servers, "200 OK")
    servers.pop().close()
    out = channels(db, tmp_path, http=http)
    await ring(db, out.names)
    await out.send_due(Channel.WEBHOOK)
    assert await stored(db) == [("queued", 1, "could not be reached (ConnectError)")]


async def test_an_e_mail_goes_to_everybody_and_nothing_in_it_adds_a_header(
    db: Database, tmp_path, servers, clock
) -> None:
    smtp = await answering(servers, "451 try again", "250 taken", smtp=True)
    out = channels(db, tmp_path, smtp=smtp)
    await ring(db, out.names)
    await out.send_due(Channel.EMAIL)
    assert await stored(db) == [("queued", 1, "the mail server said 451")]
    clock.advance(5)
    await out.send_due(Channel.EMAIL)
    assert await stored(db) == [("sent", 2, None)]
    (_, first), (said, body) = smtp.heard
    message = message_from_bytes(body, policy=default)
    assert message["Subject"] == "[critical] The disk of <!channel> has 3 % left. Bcc: all@lab.org"
    assert (message["Bcc"], message["To"]) == (None, "kim@lab.org, lee@lab.org")
    assert message["Message-ID"] == message_from_bytes(first, policy=default)["Message-ID"]
    assert "Make room." in message.get_content()
    assert said["RCPT"] == "rcpt TO:<kim@lab.org> rcpt TO:<lee@lab.org>"


async def test_a_mail_server_that_hangs_is_left_and_tried_again(db: Database, tmp_path, servers, monkeypatch) -> None:
    monkeypatch.setattr(alarm_mail, "ANSWER_S", 0.3)
    smtp = await answering(servers, "hang", smtp=True)
    out = channels(db, tmp_path, smtp=smtp)
    await ring(db, out.names)
    await out.send_due(Channel.EMAIL)
    assert await stored(db) == [("queued", 1, "the mail server could not be used (SMTPServerDisconnected)")]


async def test_a_mail_server_that_does_not_encrypt_is_given_no_password(db: Database, tmp_path, servers) -> None:
    smtp = await answering(servers, "250 taken", smtp=True)
    keys = AlarmSettings(smtp_host="127.0.0.1", smtp_port=smtp.port, smtp_user="lablink", email_from="lablink@lab.org")
    secrets = Secrets(smtp_password="a password of ours")
    out = AlarmChannels(db, Settings(home=tmp_path, secrets=secrets, alarms=keys))
    await ring(db, out.names)
    await out.send_due(Channel.EMAIL)
    assert await stored(db) == [("queued", 1, "the mail server could not be used (SMTPNotSupportedError)")]
    assert smtp.heard == []
    assert set(smtp.verbs) <= {"EHLO", "QUIT"}


async def test_what_a_dead_sender_had_taken_is_taken_by_another_once_and_not_at_once(db: Database, clock) -> None:
    await ring(db, (Channel.WEBHOOK,))
    taken = await asyncio.gather(*(take_deliveries(db, Channel.WEBHOOK) for _ in range(5)))
    assert [len(each) for each in sorted(taken, key=len)] == [0, 0, 0, 0, 1]
    clock.advance(LEASE_S + 1)
    assert [each.attempts for each in await take_deliveries(db, Channel.WEBHOOK)] == [2]


async def test_what_nobody_takes_for_a_day_is_given_up_and_an_event_says_so(
    db: Database, tmp_path, servers, clock
) -> None:
    http = await answering(servers, "404 Not Found")
    out = channels(db, tmp_path, http=http)
    await ring(db, out.names)
    clock.advance(GIVE_UP_S + 1)
    await out.send_due(Channel.WEBHOOK)
    assert await count_waiting(db) == 0
    (event,) = [each for each in await list_events(db) if each.kind == "alarm.undelivered"]
    assert event.message == "An alarm could not be told by webhook for a day: the answer was 404"


async def test_a_channel_that_nobody_configured_is_told_nothing(db: Database, tmp_path) -> None:
    out = channels(db, tmp_path)
    await ring(db, out.names)
    assert (out.names, await stored(db)) == ((), [])
