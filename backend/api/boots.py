"""What a machine needs at its birth: the agent's files for anybody, then its preparation, and an ear for its steps."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import Response

from backend.api.answers import Nothing, PreparationAnswer, refusals
from backend.api.auth import Address, Agent, Bearer, TheHouse
from backend.api.messages import BootStepMessage
from backend.errors import NotFound
from backend.provisioning.agent_package import REQUIREMENTS_NAME, agent_package
from backend.services.boots import BootStep, get_preparation, record_boot_step
from backend.services.throttles import counting_failures

router = APIRouter(tags=["boot"])
# Whoever installs from them checks their SHA-256.
_CACHED = {"Cache-Control": "public, max-age=3600"}
_FILES: dict[str, Any] = {
    "application/zip": {"schema": {"type": "string", "format": "binary"}},
    "text/plain": {"schema": {"type": "string"}},
}


@router.get(
    "/agent/{name}",
    response_model=None,
    responses={200: {"content": _FILES, "description": "the file"}, **refusals(404, 422)},
)
async def read_agent_file(name: Annotated[str, Path(max_length=100)]) -> Response:
    """The agent's wheel, and `requirements.txt`: the lock of what it needs."""
    package = agent_package()
    if name == package.wheel_name:
        return Response(package.wheel, media_type="application/zip", headers=_CACHED)
    if name == REQUIREMENTS_NAME:
        return Response(package.requirements, media_type="text/plain", headers=_CACHED)
    raise NotFound(f"There is {package.wheel_name} and {REQUIREMENTS_NAME}: this server's agent is another version.")


@router.get("/api/preparation", response_model=PreparationAnswer, responses=refusals(401, 422, 429))
async def read_preparation(agent: Agent, house: TheHouse) -> dict[str, Any]:
    """What this machine clones and runs before it is ready."""
    return asdict(await get_preparation(house.db, agent.vm_id))


@router.post("/api/boot_steps", response_model=Nothing, responses=refusals(400, 401, 413, 422, 429))
async def tell_boot_step(body: BootStepMessage, token: Bearer, house: TheHouse, address: Address) -> dict[str, Any]:
    """A step of a machine's boot, told with its enrolment token (until its agent has beaten) or its agent token."""
    step = BootStep(body.step, body.status == "succeeded", body.duration_s, body.lines)
    async with counting_failures(house.db, "enrolment", throttle=house.throttle, address=address):
        await record_boot_step(house.db, token, step, secrets=house.settings.secrets.values())
    return {}
