"""What goes out by REST, for the description of the API: its fields, and every refusal that a route may give.

Fields may be added at any time; what is named here stays.
"""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from backend.states import (
    AlarmKind,
    CheckStatus,
    ClaimStatus,
    CommandKind,
    ConditionKind,
    FindingKind,
    Health,
    Mend,
    OperationKind,
    OperationStatus,
    Origin,
    RehearsalStatus,
    RehearsalStep,
    Severity,
    Verdict,
    VmStatus,
)

_WHY = {
    400: "the body could not be read",
    401: "no credential, or one that is unknown, expired or used up",
    403: "this credential may not do this, or another site's page asked",
    404: "what is named does not exist",
    405: "the route has no such method",
    408: "the request did not arrive in time",
    409: "the present state does not allow it",
    413: "the body is too large",
    422: "a field is missing, unknown or wrong; the message names it",
    429: "too many failures; Retry-After says when to return",
    431: "the headers are too large",
    503: "not now; the same request may succeed later",
}
ANY_ROUTE = (405, 408, 431, 503)
WITH_BODY = (400, 413, 422)


class Answer(BaseModel):
    """The base: further fields may come."""

    model_config = ConfigDict(extra="allow")


class Problem(Answer):
    """A code for programs, a sentence for people."""

    code: str
    message: str


class ErrorAnswer(Answer):
    """Every refusal."""

    error: Problem


class Nothing(Answer):
    """Taken; there is nothing to say."""


class EnrolledAnswer(Answer):
    """`POST /api/vm_startup`. ``agent_token`` is there after an enrolment, and this once."""

    heartbeat_interval_s: int
    agent_token: str | None = None


class CommandItem(Answer):
    """Work for one agent."""

    id: int
    kind: CommandKind
    payload: dict[str, Any]


class PreparationAnswer(Answer):
    """`GET /api/preparation`."""

    repository: str | None
    startup_script: str | None
    cleaning_script: str | None


class CommandsAnswer(Answer):
    """`GET /api/commands`."""

    commands: list[CommandItem]


class ClaimedAnswer(Answer):
    """A seat, or one's own once more. ``hostname`` is null until there is a machine; ``seat_key`` is told this once."""

    hostname: str | None
    status: ClaimStatus
    seat_url: str
    seat_key: str | None = None


class WaitingAnswer(Answer):
    """A place in line, from 1."""

    status: Literal["waiting"]
    position: int
    seat_url: str
    seat_key: str | None = None


class ConditionItem(Answer):
    """What is wrong with a VM, since when, and what can be done about it."""

    kind: ConditionKind
    severity: Severity
    since_at: datetime
    sentence: str
    remedy: str


class InstanceItem(Answer):
    """A VM."""

    hostname: str
    pool: str
    provider: str
    origin: Origin
    status: VmStatus
    reason: str | None
    email: str | None
    health: Health | None
    conditions: list[ConditionItem]
    boot_id: str | None
    agent_version: str | None
    created_at: datetime
    status_changed_at: datetime


class InstancesAnswer(Answer):
    """`GET /api/admin/instances`."""

    instances: list[InstanceItem]


class LaunchAnswer(Answer):
    """`POST /api/admin/create`."""

    operation_id: int
    hostnames: list[str]


class DestroyAnswer(Answer):
    """`POST /api/admin/destroy`: one operation a pool; none where only joined machines leave."""

    operation_id: int | None
    operation_ids: list[int]
    hostnames: list[str]


class OperationAnswer(Answer):
    """`GET /api/admin/operations/{id}`."""

    id: int
    pool: str
    kind: OperationKind
    status: OperationStatus
    reason: str | None
    requested_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    hostnames: list[str]
    progress: list[dict[str, Any]]


class CheckItem(Answer):
    """One thing that a launch depends on. ``remedy``: what to do, unless it is ok."""

    name: str
    status: CheckStatus
    sentence: str
    remedy: str


class CostItem(Answer):
    """US dollars. ``price_per_hour``: of one VM; null where no price is known."""

    price_per_hour: float | None
    source: str | None
    as_of: datetime | None
    per_hour: float
    hours: float
    planned: float


class PreflightAnswer(Answer):
    """`POST /api/admin/preflight`. ``problem``: why LabLink itself would refuse the launch."""

    checks: list[CheckItem]
    problem: str | None
    cost: CostItem


class SumsItem(Answer):
    """US dollars."""

    per_hour: float
    today: float


class CostsAnswer(SumsItem):
    """`GET /api/admin/costs`."""

    pools: dict[str, SumsItem]


class FindingItem(Answer):
    """A disagreement. ``mend``: what mending does; null where only a person can, by hand."""

    id: int
    provider: str
    pool: str | None
    kind: FindingKind
    subject: str
    sentence: str
    mend: Mend | None
    machine_id: str | None
    hostname: str | None
    found_at: datetime


class FindingsAnswer(Answer):
    """`GET /api/admin/findings`."""

    findings: list[FindingItem]


class MendedAnswer(Answer):
    """`POST /api/admin/findings/{id}/mend`: what was done, or the operation that does it."""

    sentence: str
    operation_id: int | None


class StateItem(Answer):
    """A Terraform state; ``size`` in bytes."""

    name: str
    at: datetime
    size: int
    is_current: bool


class StatesAnswer(Answer):
    """`GET /api/admin/pools/{name}/states`."""

    states: list[StateItem]


class ScheduleAnswer(Answer):
    """`POST /api/admin/schedules`, and an item of its list. Weekdays count from 0, Monday."""

    id: int
    pool: str
    name: str
    zone: str
    weekdays: list[int]
    starts: time
    stops: time
    first_on: date
    last_on: date | None
    skips: list[date]
    count: int
    catch_up_s: int
    paused: bool
    next_starts_at: datetime | None
    next_stops_at: datetime | None


class SchedulesAnswer(Answer):
    """`GET /api/admin/schedules`."""

    schedules: list[ScheduleAnswer]


class RehearsedItem(Answer):
    """How one machine did. ``status``: passed, failed, skipped, or the step that it is at."""

    hostname: str
    status: str
    step: RehearsalStep
    connection: str | None
    said: str | None
    problem: str | None
    remedy: str | None


class ReasonItem(Answer):
    """Something that speaks against the class, or that is good to know, and what to do about it."""

    is_against: bool
    what: str
    remedy: str


class NeedItem(Answer):
    """Machines: needed, there, to be launched and until when; and the boot times that this rests on, in seconds."""

    needed: int
    up: int
    coming: int
    most: int
    to_launch: int
    short_at: datetime | None
    launch_at: datetime | None
    obstacle: str | None
    last_class: dict[str, int] | None
    boots: dict[str, float | None]


class RehearsalAnswer(Answer):
    """`POST /api/admin/rehearsals`, and one of them. ``arrivals.state``: wanted, running, replayed, failed or off."""

    id: int
    pool: str
    status: RehearsalStatus
    people: int
    over_minutes: float
    starts_at: datetime
    zone: str
    created_at: datetime
    ended_at: datetime | None
    reason: str | None
    verdict: Verdict | None
    need: NeedItem
    machines: list[RehearsedItem]
    arrivals: dict[str, Any]
    reasons: list[ReasonItem]


class BudgetAnswer(Answer):
    """`PUT /api/admin/budgets/{pool}`, and an item of the list. US dollars; ``fused``: nothing more is launched."""

    pool: str
    dollars: float
    spent: float
    counts_from: datetime
    fused: bool
    lifted: bool


class BudgetsAnswer(Answer):
    """`GET /api/admin/budgets`."""

    budgets: list[BudgetAnswer]


class AlarmItem(Answer):
    """An alarm. ``place``: the path of the console's page where something can be done; it ends with its cause."""

    id: int
    kind: AlarmKind
    severity: Severity
    pool: str | None
    sentence: str
    remedy: str
    place: str
    opened_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    resolved_at: datetime | None


class AlarmsAnswer(Answer):
    """`GET /api/admin/alarms`."""

    alarms: list[AlarmItem]


class AcknowledgedAnswer(Answer):
    """`POST /api/admin/alarms/acknowledge`: how many it was."""

    acknowledged: int


class TokensAnswer(Answer):
    """`POST /api/admin/enrolments`."""

    tokens: list[str]


class AliveAnswer(Answer):
    """`GET /healthz`."""

    status: Literal["ok"]


class ReadyAnswer(Answer):
    """`GET /readyz`. ``tasks`` holds those that failed last time, with their sentence.

    ``leads``: of several processes this one sweeps for all.
    """

    status: Literal["ready", "not ready", "stopping"]
    listener: str
    pages: str
    leads: bool
    tasks: dict[str, str]


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals that a route may give, besides those of any route."""
    return {status: {"model": ErrorAnswer, "description": _WHY[status]} for status in (*ANY_ROUTE, *statuses)}
