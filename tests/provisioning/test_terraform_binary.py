from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from backend.provisioning import terraform_binary
from backend.provisioning.terraform_binary import CHECKSUMS, TerraformMissing, ensure_terraform
from backend.settings import TERRAFORM_VERSION
from tests.harness.server import free_port

PROGRAM = b"#!/bin/sh\necho fetched\n"


@pytest.fixture(autouse=True)
def directly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is reached directly, whatever proxies are set here."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def releases(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of releases, with a small archive whose checksum is the pinned one."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("terraform", PROGRAM)
    content = packed.getvalue()
    monkeypatch.setattr(terraform_binary, "CHECKSUMS", dict.fromkeys(CHECKSUMS, hashlib.sha256(content).hexdigest()))
    expected = f"/{TERRAFORM_VERSION}/terraform_{TERRAFORM_VERSION}_{terraform_binary._platform()}.zip"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == expected else 404)
            self.end_headers()
            self.wfile.write(content if self.path == expected else b"")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def install(directory: Path, version: str | None) -> Path:
    """A program named terraform that says this version; None: one that does not work."""
    program = directory / "terraform"
    said = json.dumps({"terraform_version": version})
    program.write_text(f"#!/bin/sh\necho '{said}'\n" if version else "#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    return program


def left_in(directory: Path) -> list[str]:
    return [path.name for path in directory.rglob("*") if path.is_file()]


@pytest.mark.parametrize("version", ["1.9.0", "1.10.0-rc1", "1.11.4", "2.0.0"])
async def test_a_terraform_on_the_path_that_is_new_enough_is_taken(tmp_path: Path, version: str) -> None:
    program = install(tmp_path, version)
    assert await ensure_terraform(tmp_path / "home", download=False, path=str(tmp_path)) == program


@pytest.mark.parametrize("version", ["1.8.5", "0.15.0", None, "nonsense"])
async def test_one_that_is_too_old_or_broken_is_not_taken_and_the_message_names_it(
    tmp_path: Path, version: str | None
) -> None:
    program = install(tmp_path, version)
    with pytest.raises(TerraformMissing, match=rf"^{program} is not Terraform 1\.9 or newer, and terraform\.download"):
        await ensure_terraform(tmp_path / "home", download=False, path=str(tmp_path))


async def test_without_one_and_without_leave_to_fetch_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TerraformMissing) as caught:
        await ensure_terraform(tmp_path, download=False, path=str(tmp_path))
    assert caught.value.message == (
        "There is no Terraform on the PATH, and terraform.download is false. "
        "Install Terraform 1.9 or newer (developer.hashicorp.com/terraform/install) and start again."
    )


async def test_a_missing_one_is_fetched_once_into_the_data_directory(tmp_path: Path, releases: str) -> None:
    install(tmp_path, "1.8.0")
    fetched = await ensure_terraform(tmp_path / "home", download=True, releases=releases, path=str(tmp_path))
    assert fetched == tmp_path / "home" / "terraform" / TERRAFORM_VERSION / "terraform"
    assert fetched.read_bytes() == PROGRAM
    assert fetched.stat().st_mode & 0o111
    assert left_in(tmp_path / "home") == ["terraform"]
    nowhere = f"http://127.0.0.1:{free_port()}"
    assert await ensure_terraform(tmp_path / "home", download=True, releases=nowhere, path="") == fetched


async def test_an_archive_with_another_checksum_is_thrown_away(tmp_path: Path, releases: str, monkeypatch) -> None:
    monkeypatch.setattr(terraform_binary, "CHECKSUMS", dict.fromkeys(CHECKSUMS, "0" * 64))
    with pytest.raises(TerraformMissing, match="does not match its checksum; it was thrown away"):
        await ensure_terraform(tmp_path, download=True, releases=releases, path="")
    assert left_in(tmp_path) == []


async def test_a_fetch_that_fails_says_why_and_what_to_do(tmp_path: Path, releases: str) -> None:
    for address, why in ((f"http://127.0.0.1:{free_port()}", "ConnectionError"), (f"{releases}/elsewhere", "HTTP 404")):
        with pytest.raises(TerraformMissing) as caught:
            await ensure_terraform(tmp_path, download=True, releases=address, path="")
        said = (
            f"There is no Terraform on the PATH, and {TERRAFORM_VERSION} could not be fetched: {why}. Install Terraform"
        )
        assert caught.value.message.startswith(said)
    assert left_in(tmp_path) == []


async def test_a_data_directory_without_room_for_it_is_said(tmp_path: Path, releases: str) -> None:
    (tmp_path / "terraform").write_text("a file where a directory belongs")
    with pytest.raises(TerraformMissing, match="could not be written to"):
        await ensure_terraform(tmp_path, download=True, releases=releases, path="")


async def test_a_platform_that_nobody_builds_for_is_said(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(terraform_binary, "_platform", lambda: "plan9_mips")
    with pytest.raises(TerraformMissing, match="none to fetch for plan9_mips"):
        await ensure_terraform(tmp_path, download=True, releases="http://127.0.0.1:9", path="")
