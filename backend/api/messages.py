"""What may come in by REST: every field named, typed and bounded; anything else is refused with its name."""

from __future__ import annotations

from datetime import date, time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from backend.services.vm_logs import MAX_BATCH_LINES, MAX_LINE
from backend.states import Health, Phase, Role


def storable(value: str) -> str:
    """The text, if Postgres can hold it.

    Raises:
        ValueError: it cannot; says why.
    """
    if "\x00" in value:
        raise ValueError("must not contain NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode") from None
    return value


Words = Annotated[str, AfterValidator(storable)]
Opaque = Annotated[Words, Field(min_length=1, max_length=128)]
Name = Annotated[Words, Field(min_length=1, max_length=255)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
# From 1970 to 2286.
Milliseconds = Annotated[int, Field(ge=0, lt=10**13)]
Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


class Message(BaseModel):
    """The base: no unknown fields, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True)


class BootMessage(Message):
    """`POST /api/vm_startup`."""

    hostname: Name
    boot_id: Opaque
    agent_version: Opaque


class BootStepMessage(Message):
    """`POST /api/boot_steps`. ``lines``: the last of the step's log, if it failed."""

    step: Annotated[Words, Field(min_length=1, max_length=64)]
    status: Literal["succeeded", "failed"]
    duration_s: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
    lines: Annotated[list[Annotated[str, Field(max_length=4 * MAX_LINE)]], Field(max_length=100)] = []


class GpuMessage(Message):
    """One GPU in a heartbeat. An agent may send more about it than we know.

    ``error``: it does not answer, and why. ``xids``: NVIDIA's numbers of the errors since the agent began.
    ``throttle``: why it slows itself down, if it does: heat, power.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    index: Annotated[int, Field(ge=0, le=1_023)] = 0
    name: Annotated[Words, Field(max_length=200)] = ""
    uuid: Annotated[Words, Field(max_length=200)] | None = None
    utilisation_pct: Percent | None = None
    memory_used_mb: Amount | None = None
    memory_total_mb: Amount | None = None
    temperature_c: Annotated[float, Field(ge=-100, le=1_000, allow_inf_nan=False)] | None = None
    error: Annotated[Words, Field(max_length=200)] | None = None
    xids: Annotated[list[Annotated[int, Field(ge=0, le=100_000)]], Field(max_length=64)] = []
    ecc_uncorrected: Annotated[int, Field(ge=0)] | None = None
    throttle: Annotated[list[Annotated[Words, Field(max_length=40)]], Field(max_length=8)] = []


class ContainerMessage(Message):
    """The workload's container in a heartbeat: ``state`` is Docker's word, or "not there"."""

    name: Name
    state: Annotated[Words, Field(min_length=1, max_length=40)]


class HeartbeatMessage(Message):
    """`POST /api/heartbeat`. ``interruption_at``: when the cloud takes the machine away, if it has said so.

    ``sent_at`` is the agent's own time. ``container``: the workload's, where there should be one.
    """

    boot_id: Opaque
    # Lax: JSON has no enums, only their words.
    phase: Annotated[Phase, Field(strict=False)]
    health: Annotated[Health, Field(strict=False)]
    reasons: Annotated[list[Annotated[Words, Field(max_length=500)]], Field(max_length=20)] = []
    gpus: Annotated[list[GpuMessage], Field(max_length=64)] = []
    cpu_pct: Percent
    memory_pct: Percent
    disk_free_pct: Percent
    interruption_at: Annotated[AwareDatetime, Field(strict=False)] | None = None
    sent_at: Annotated[AwareDatetime, Field(strict=False)] | None = None
    disk_free_gb: Amount | None = None
    container: ContainerMessage | None = None


class ResultMessage(Message):
    """`POST /api/commands/{id}`. While it is ``running``, ``detail`` says how far; the command stays open."""

    status: Literal["running", "succeeded", "failed"]
    detail: Annotated[Words, Field(max_length=4_000)] = ""
    data: dict[str, Any] = {}


class CrdMessage(Message):
    """`POST /api/seat/crd_command`: the line that Google shows, as it was pasted."""

    crd_command: str


class LogsMessage(Message):
    """`POST /api/logs`. A longer line is cut, not refused: the agent could not send it otherwise.

    ``first_seq`` numbers the first line in the agent's ``stream``: what comes twice is kept once. ``ats_ms`` says when
    each line was written and ``sent_at_ms`` when this was sent, both by the agent's clock, in ms since 1970.
    """

    source: Annotated[Words, Field(min_length=1, max_length=64)]
    lines: Annotated[list[Annotated[str, Field(max_length=4 * MAX_LINE)]], Field(max_length=MAX_BATCH_LINES)]
    stream: Annotated[Words, Field(max_length=64)] = ""
    first_seq: Annotated[int, Field(ge=1, le=2**53)] | None = None
    ats_ms: Annotated[list[Milliseconds], Field(max_length=MAX_BATCH_LINES)] | None = None
    sent_at_ms: Milliseconds | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> LogsMessage:
        if (self.first_seq is None) != (self.stream == ""):
            raise ValueError('"stream" and "first_seq" come together')
        if (self.ats_ms is None) != (self.sent_at_ms is None):
            raise ValueError('"ats_ms" and "sent_at_ms" come together')
        if self.ats_ms is not None and len(self.ats_ms) != len(self.lines):
            raise ValueError('"ats_ms" must have as many entries as "lines"')
        return self


class ClaimMessage(Message):
    """`POST /api/request_vm`. ``me`` is what a personal link carries; it says the e-mail, as a sign-in does."""

    email: Name | None = None
    pool: Name
    code: Annotated[Words, Field(max_length=128)] | None = None
    me: Annotated[Words, Field(max_length=128)] | None = None


class SeatKeyMessage(Message):
    """`POST /api/seat/open`."""

    seat_key: Annotated[Words, Field(min_length=1, max_length=128)]


class CreateMessage(Message):
    """`POST /api/admin/create`."""

    pool: Name
    count: int


class PreflightMessage(Message):
    """`POST /api/admin/preflight`. ``hours``: for how long the costs are wanted."""

    pool: Name
    count: Annotated[int, Field(ge=1, le=1_000)]
    hours: Annotated[float, Field(ge=0, le=8_784, allow_inf_nan=False)] = 24


class DestroyMessage(Message):
    """`POST /api/admin/destroy`: some by name, or a whole pool."""

    hostnames: Annotated[list[Name], Field(min_length=1, max_length=1_000)] | None = None
    all: Literal[True] | None = None
    pool: Name | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> DestroyMessage:
        by_name = self.hostnames is not None and self.all is None and self.pool is None
        whole_pool = self.hostnames is None and self.all is True and self.pool is not None
        if not (by_name or whole_pool):
            raise ValueError('give either "hostnames", or "all": true with "pool"')
        return self


class EnrolmentsMessage(Message):
    """`POST /api/admin/enrolments`."""

    pool: Name
    count: int


class ScheduleMessage(Message):
    """`POST /api/admin/schedules`. Weekdays count from 0, Monday; times are of the clocks in ``zone``."""

    pool: Name
    name: Name
    zone: Name
    weekdays: Annotated[list[Annotated[int, Field(ge=0, le=6)]], Field(min_length=1, max_length=7)]
    # Lax: JSON has neither times nor dates, only their words.
    starts: Annotated[time, Field(strict=False)]
    stops: Annotated[time, Field(strict=False)]
    first_on: Annotated[date | None, Field(strict=False)] = None
    last_on: Annotated[date | None, Field(strict=False)] = None
    skips: Annotated[list[Annotated[date, Field(strict=False)]], Field(max_length=180)] = []
    count: Annotated[int, Field(ge=1, le=1_000)]
    catch_up_s: Annotated[int, Field(ge=0, le=86_400)] = 1_800


class RehearsalMessage(Message):
    """`POST /api/admin/rehearsals`: so many people, the first at ``starts_at``, the last ``over_minutes`` later.

    ``zone``: by whose clocks the reasons tell times, such as Europe/Berlin.
    """

    pool: Name
    people: Annotated[int, Field(ge=1, le=2_000)]
    over_minutes: Annotated[float, Field(ge=0, le=1_440, allow_inf_nan=False)] = 10
    # Lax: JSON has no times, only their words.
    starts_at: Annotated[AwareDatetime, Field(strict=False)]
    zone: Name = "UTC"
    arrivals: bool = True


class AcknowledgeMessage(Message):
    """`POST /api/admin/alarms/acknowledge`."""

    ids: Annotated[list[Annotated[int, Field(ge=1, lt=2**63)]], Field(min_length=1, max_length=1_000)]


class BudgetMessage(Message):
    """`PUT /api/admin/budgets/{pool}`. ``from_now``: what was spent before counts no more."""

    dollars: Annotated[float, Field(ge=0.01, le=10_000_000, allow_inf_nan=False)]
    from_now: bool = False


class TokenMessage(Message):
    """`POST /api/admin/tokens`. ``days``: how long it lives; without it, until it is revoked."""

    name: Name
    role: Annotated[Role, Field(strict=False)]
    days: int | None = None
