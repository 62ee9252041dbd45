"""Keys: rotated without throwing anybody out, by the command line and in a running server."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess

import pytest

from backend.keys import KEPT_KEYS, KeyRing, UnusableKey, load_keys, new_key, rotate_keys
from tests.harness.forms import form_token
from tests.harness.server import LABLINK, PASSWORD
from tests.harness.waiting import until


def lablink(home, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line as people use it."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("LABLINK_")}
    return subprocess.run(
        [str(LABLINK), *arguments], env={**plain, "LABLINK_HOME": str(home), **environment}, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip


def test_what_older_keys_sealed_and_signed_stays_valid_until_they_fall_off(tmp_path) -> None:
    first = load_keys(tmp_path)
    sealed, signature = first.seal("kim"), first.sign("form", "browser")
    for n in range(KEPT_KEYS - 1):
        assert rotate_keys(tmp_path) == min(n + 2, KEPT_KEYS)
        ring = load_keys(tmp_path)
        assert ring.unseal(sealed) == "kim"
        assert ring.is_signed("form", "browser", signature)
        # The newest seals and signs: what comes out now is unknown to the first.
        assert first.unseal(ring.seal("kim")) is None
        assert ring.sign("form", "browser") != signature
    assert rotate_keys(tmp_path) == KEPT_KEYS
    assert load_keys(tmp_path).unseal(sealed) is None
    assert not load_keys(tmp_path).is_signed("form", "browser", signature)
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600


def test_keys_of_the_environment_win_over_the_file(tmp_path) -> None:
    given, former = new_key(), new_key()
    of_file = load_keys(tmp_path)
    ring = load_keys(tmp_path, f"{given}, {former}")
    assert ring.unseal(KeyRing([former]).seal("kim")) == "kim"
    assert ring.unseal(of_file.seal("kim")) is None
    with pytest.raises(UnusableKey):
        load_keys(tmp_path, "not a key")


def test_a_signature_is_for_one_purpose(tmp_path) -> None:
    ring = load_keys(tmp_path)
    assert not ring.is_signed("link", "browser", ring.sign("form", "browser"))
    assert not ring.is_signed("form", "browser", "é")


def test_the_command_line_rotates_the_file_and_leaves_the_environment_to_its_owner(tmp_path) -> None:
    made = lablink(tmp_path, "keys", "rotate")
    assert (made.returncode, len(json.loads((tmp_path / "keys.json").read_text())["keys"])) == (0, 2)
    key = lablink(tmp_path, "keys", "new").stdout.strip()
    assert KeyRing([key])
    refused = lablink(tmp_path, "keys", "rotate", LABLINK_KEYS=key)
    assert refused.returncode == 1
    assert "LABLINK_KEYS" in refused.stderr
    assert key not in refused.stderr


async def test_a_running_server_takes_up_rotated_keys_and_nobody_is_thrown_out(web_server) -> None:
    async with web_server.client() as client:
        before = await form_token(client, "/login")
        assert lablink(web_server.home, "keys", "rotate").returncode == 0
        assert web_server.process is not None
        web_server.process.send_signal(signal.SIGHUP)
        await until(lambda: "read anew" in web_server.log.read_text(), what="the server reads its keys")
        # New pages are signed with the new key; a form that was open all the while is taken.
        assert await form_token(client, "/login") != before
        data = {"form_token": before, "user": "admin", "password": PASSWORD}
        answer = await client.post("/login", data=data, headers={"Origin": web_server.url})
        assert answer.headers["location"] == "/admin"


async def test_unusable_keys_leave_a_running_server_as_it_was(web_server) -> None:
    path = web_server.home / "keys.json"
    kept = path.read_text()
    path.write_text('{"keys": ["nonsense"]}')
    try:
        web_server.process.send_signal(signal.SIGHUP)
        await until(lambda: "stay as they were" in web_server.log.read_text(), what="the server says why")
        async with web_server.client() as client:
            assert await form_token(client, "/login")
    finally:
        path.write_text(kept)
