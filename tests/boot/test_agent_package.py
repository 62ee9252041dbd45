"""What the server gives out is the agent: it installs into a clean environment, and works.

Covered: the very wheel, by pip, with every version of the lock and nothing else, and the agent that comes of it before
a real server. Not covered: the archives that PyPI serves under the lock's hashes, since tests stay on loopback; what
these are is checked by `make`, which installs the tests' own environment from a lock with the same hashes.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import httpx
import pytest

from backend.provisioning.agent_package import agent_package
from tests.agent.tiny_server import TinyServer
from tests.harness.agents import make_tokens
from tests.harness.package_index import hashes_of, make_index, rehashed
from tests.harness.pools import make_pool
from tests.harness.server import Server

ROOT = Path(__file__).parents[2]
QUIET = ("--isolated", "--disable-pip-version-check", "--no-input")


def pip_of(python: Path) -> list[str]:
    """Our own pip at work on another environment."""
    return [sys.executable, "-m", "pip", *QUIET, "--python", str(python)]


@pytest.fixture(scope="module")
async def clean_lablink(shared_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`lablink` in a virtual environment that was made from what the server serves."""
    directory, package = tmp_path_factory.mktemp("clean"), agent_package()
    async with shared_server.client() as client:
        wheel = await client.get(f"/agent/{package.wheel_name}", headers={"Authorization": ""})
        lock = await client.get("/agent/requirements.txt", headers={"Authorization": ""})
    assert (wheel.status_code, lock.status_code) == (200, 200)
    assert hashlib.sha256(wheel.content).hexdigest() == package.wheel_sha256
    assert hashlib.sha256(lock.content).hexdigest() == package.requirements_sha256
    assert "max-age" in wheel.headers["cache-control"]
    (directory / package.wheel_name).write_bytes(wheel.content)
    (directory / "requirements.txt").write_text(rehashed(lock.text))
    pip = pip_of(directory / "venv/bin/python")
    index = TinyServer()
    index.files = make_index(lock.text)
    try:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory / "venv"], check=True)
        install = [*pip, "install", "--quiet", "--no-deps"]
        locked = ["--require-hashes", "--only-binary", ":all:", "--index-url", f"{index.url}/simple/"]
        subprocess.run([*install, *locked, "-r", directory / "requirements.txt"], check=True)
        subprocess.run([*install, "--no-index", directory / package.wheel_name], check=True)
    finally:
        index.close()
    subprocess.run([*pip, "check"], check=True)
    return directory / "venv/bin/lablink"


def run_clean(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": os.defpath}, cwd="/", check=False)


async def test_the_clean_environment_has_the_agent_and_no_server(clean_lablink: Path) -> None:
    said = run_clean(clean_lablink, "agent", "--help")
    assert said.returncode == 0, said.stderr
    assert "Enrol this machine with a LabLink server" in said.stdout
    assert run_clean(clean_lablink, "serve").returncode == 2
    python = clean_lablink.with_name("python")
    for module in ("backend", "lablink_ui", "fastapi", "sqlalchemy"):
        assert run_clean(python, "-c", f"import {module}").returncode == 1
    listed = run_clean(*pip_of(python), "list", "--format", "freeze").stdout.split()
    assert set(listed) == {*hashes_of(agent_package().requirements.decode()), f"lablink=={version('lablink')}"}


async def test_its_agent_enrols_and_becomes_available(
    clean_lablink: Path, shared_server: Server, tmp_path: Path
) -> None:
    (token,) = await make_tokens(shared_server, 1, await make_pool(shared_server, "wheel"))
    agent = subprocess.Popen(
        [clean_lablink, "agent", "--server", shared_server.url, "--hostname", "clean-1", "--home", tmp_path / "home"],
        env={"PATH": os.defpath, "LABLINK_ENROLMENT_TOKEN": token},
        cwd="/",
    )
    try:
        vm = (await shared_server.until_status(["clean-1"], "available"))["clean-1"]
        assert vm["pool"] == "wheel"
    finally:
        agent.terminate()
        agent.wait(10)


def test_the_same_version_is_the_same_file_wherever_it_is_built() -> None:
    program = "from backend.provisioning.agent_package import agent_package as p; print(p().wheel_sha256)"
    other = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Pacific/Auckland"}
    built = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, env=other, text=True)
    assert built.strip() == agent_package().wheel_sha256
    entries = zipfile.ZipFile(BytesIO(agent_package().wheel)).infolist()
    found = {(entry.date_time, entry.compress_type) for entry in entries}
    assert found == {((1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED)}


def test_the_hashes_of_the_agents_lock_are_those_that_this_environment_was_installed_with() -> None:
    whole = hashes_of((ROOT / "requirements/dev.txt").read_text())
    agents = hashes_of(agent_package().requirements.decode())
    assert len(agents) >= 8
    assert all(hashes and hashes <= whole[name] for name, hashes in agents.items())


async def test_another_version_of_the_agent_is_not_there(shared_server: Server) -> None:
    answer = httpx.get(f"{shared_server.url}/agent/lablink-0.0.1-py3-none-any.whl", trust_env=False)
    assert answer.status_code == 404
    assert "another version" in answer.json()["error"]["message"]
