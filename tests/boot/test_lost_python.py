"""A machine whose Python somebody replaced: a life of its own, played by `make soak` alone."""

from __future__ import annotations

import pytest

from tests.boot.conftest import Birth


@pytest.mark.long
async def test_an_agent_whose_python_has_gone_is_installed_again(born: Birth) -> None:
    born.machine.run_user_data(born.user_data(image=None))
    await born.until_phase("ready")
    (installed,) = (born.machine.root / "opt/lablink").glob("agent-*/venv/bin/python")
    installed.unlink()
    born.forget()
    born.machine.run("systemctl", "restart", "lablink-agent.service")
    await born.until_phase("ready")
    assert [step["step"] for step in born.server.steps()][:2] == ["python", "agent"]
    assert {each.token for each in born.server.of("/api/boot_steps")} == set(born.server.agent_tokens)
