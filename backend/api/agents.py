"""The routes for agents. The token names the VM; nothing in a body can."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from backend.api.answers import CommandsAnswer, EnrolledAnswer, Nothing, refusals
from backend.api.auth import Address, Agent, Bearer, TheHouse
from backend.api.lean import AgentReport
from backend.api.messages import BootMessage, HeartbeatMessage, LogsMessage, ResultMessage
from backend.live.command_waits import MAX_WAIT_S
from backend.redaction import redact
from backend.services.actor import Actor
from backend.services.commands import record_command_result
from backend.services.crd import open_payload
from backend.services.crd_results import record_command_progress
from backend.services.enrolments import announce_boot
from backend.services.heartbeats import HeartbeatReport
from backend.services.throttles import counting_failures
from backend.services.vm_logs import LogBatch

router = APIRouter(prefix="/api", tags=["agent"], responses=refusals(401, 422, 429))
# Of a thousand machines each 20 s, and of whoever writes a log: there the framework's own share counts.
reports = APIRouter(prefix="/api", tags=["agent"], responses=refusals(401, 422, 429), route_class=AgentReport)
BIGGEST_ID = 2**63 - 1
# The way here takes time too: times of lines stay as they are while they are about right.
BEARABLE_SKEW_MS = 2_000


@router.post(
    "/vm_startup", response_model=EnrolledAnswer, response_model_exclude_unset=True, responses=refusals(400, 409, 413)
)
async def vm_startup(body: BootMessage, token: Bearer, house: TheHouse, address: Address) -> dict[str, Any]:
    """Enrols with an enrolment token, or re-announces a boot with an agent token."""
    async with counting_failures(house.db, "enrolment", throttle=house.throttle, address=address):
        enrolled = await announce_boot(
            house.db,
            token,
            hostname=body.hostname,
            boot_id=body.boot_id,
            agent_version=body.agent_version,
            address=address,
        )
    # The former token of this VM dies with this answer, not with a notice some time after it.
    house.agent_tokens.forget(enrolled.vm_id)
    answer: dict[str, Any] = {"heartbeat_interval_s": house.settings.agent.heartbeat_interval_s}
    if enrolled.agent_token is not None:
        answer["agent_token"] = enrolled.agent_token
    return answer


@router.get("/commands", response_model=CommandsAnswer)
async def list_commands(
    agent: Agent, house: TheHouse, wait: Annotated[float, Query(ge=0, le=MAX_WAIT_S)] = 0
) -> dict[str, Any]:
    """What there is to do: at once if there is something, else when it comes, else nothing after `wait` seconds."""
    commands = await house.commands.wait(agent.vm_id, wait_s=wait)
    return {
        "commands": [{"id": each.id, "kind": each.kind, "payload": open_payload(house.keys, each)} for each in commands]
    }


@router.post("/commands/{command_id}", response_model=Nothing, responses=refusals(400, 404, 413))
async def report_result(
    command_id: Annotated[int, Path(ge=1, le=BIGGEST_ID)], body: ResultMessage, agent: Agent, house: TheHouse
) -> dict[str, Any]:
    """The result of a command, or how far it is; telling a result again changes nothing."""
    actor = Actor.agent(agent.hostname)
    if body.status == "running":
        await record_command_progress(house.db, agent.vm_id, command_id, detail=body.detail, actor=actor)
        return {}
    await record_command_result(
        house.db,
        agent.vm_id,
        command_id,
        succeeded=body.status == "succeeded",
        detail=body.detail,
        data=body.data,
        actor=actor,
    )
    return {}


@reports.post("/heartbeat", response_model=Nothing, responses=refusals(400, 413))
async def heartbeat(body: HeartbeatMessage, agent: Agent, house: TheHouse) -> None:
    """Liveness and health."""
    at = house.db.now()
    await house.heartbeats.add(
        HeartbeatReport(
            vm_id=agent.vm_id,
            enrolment_id=agent.enrolment_id,
            at=at,
            boot_id=body.boot_id,
            phase=body.phase,
            health=body.health,
            reasons=tuple(map(redact, body.reasons)),
            gpus=tuple(gpu.model_dump() for gpu in body.gpus),
            cpu_pct=body.cpu_pct,
            memory_pct=body.memory_pct,
            disk_free_pct=body.disk_free_pct,
            interruption_at=body.interruption_at,
            disk_free_gb=body.disk_free_gb,
            skew_s=(at - body.sent_at).total_seconds() if body.sent_at else None,
            container=body.container.model_dump() if body.container else None,
        )
    )


@reports.post("/logs", response_model=Nothing, responses=refusals(400, 413))
async def ship_logs(body: LogsMessage, agent: Agent, house: TheHouse) -> None:
    """Lines of the machine's logs. The answer is a receipt: they are stored."""
    if body.lines:
        ats_ms = _by_our_clock(body.ats_ms, body.sent_at_ms, house.db.now())
        await house.logs.add(LogBatch(agent.vm_id, body.source, body.lines, ats_ms, body.stream, body.first_seq))


def _by_our_clock(ats_ms: list[int] | None, sent_at_ms: int | None, now: datetime) -> list[int] | None:
    """Times as the agent gave them, unless its clock is wrong; then by ours."""
    if ats_ms is None or sent_at_ms is None:
        return None
    skew_ms = int(now.timestamp() * 1_000) - sent_at_ms
    return ats_ms if abs(skew_ms) < BEARABLE_SKEW_MS else [max(0, at_ms + skew_ms) for at_ms in ats_ms]
