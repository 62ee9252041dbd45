"""What services hand out: frozen pictures of rows, made for pages and for the REST surface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from backend.services.aws_spec import AwsSpec
from backend.services.conditions import ConditionView
from backend.states import (
    Access,
    ClaimStatus,
    CrdStatus,
    Health,
    OperationKind,
    OperationStatus,
    Origin,
    PoolStatus,
    ProgressState,
    VmStatus,
)


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool as people see it. Prices are US dollars per VM and hour.

    ``is_rehearsal``: its machines and people are simulated, and it goes with the rehearsal that made it.
    """

    id: int
    name: str
    provider: str
    status: PoolStatus
    max: int
    available_min: int
    price_per_hour: float
    boot_deadline_s: int
    unreachable_grace_s: int
    startup_script: str | None
    repository: str | None
    access: Access
    oidc_group: str | None
    terminal: bool
    crd: bool
    url_template: str | None
    claim_duration_s: int | None
    idle_limit_s: int | None
    aws: AwsSpec
    created_at: datetime
    health: Mapping[str, float] = field(default_factory=dict)
    cleaning_script: str | None = None
    cleaning_deadline_s: int = 300
    check_command: str | None = None
    is_rehearsal: bool = False
    healing: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VmView:
    """A VM as people see it. ``actions`` are the verbs allowed now; percentages run from 0 to 100.

    ``isolation`` says what keeps its terminals apart from the rest of it, once its agent has told; ``interruption_at``
    when the cloud takes it away, if it has said so; ``is_unclean`` that its former session may still be there;
    ``kept_for`` the claim whose seat left it, if it is kept.
    """

    id: int
    hostname: str
    pool_id: int
    pool: str
    provider: str
    origin: Origin
    status: VmStatus
    reason: str | None
    health: Health | None
    reasons: tuple[str, ...]
    unreachable_since: datetime | None
    email: str | None
    boot_id: str | None
    agent_version: str | None
    isolation: str | None
    gpus: tuple[dict[str, Any], ...]
    cpu_pct: float | None
    memory_pct: float | None
    disk_free_pct: float | None
    last_heartbeat_at: datetime | None
    created_at: datetime
    status_changed_at: datetime
    price_per_hour: float
    actions: tuple[str, ...]
    interruption_at: datetime | None = None
    is_draining: bool = False
    is_unclean: bool = False
    kept_for: int | None = None
    conditions: tuple[ConditionView, ...] = ()


@dataclass(frozen=True, slots=True)
class ClaimView:
    """An open or ended claim. ``hostname`` is None while in line; ``ends_at`` is when it ends by itself."""

    id: int
    pool_id: int
    pool: str
    email: str
    status: ClaimStatus
    reason: str | None
    vm_id: int | None
    hostname: str | None
    created_at: datetime
    status_changed_at: datetime
    ended_at: datetime | None
    ends_at: datetime | None = None
    warned_at: datetime | None = None
    stops_at: datetime | None = None
    warned_again_at: datetime | None = None
    last_active_at: datetime | None = None
    crd_status: CrdStatus | None = None
    crd_detail: str | None = None
    crd_link: str | None = None


@dataclass(frozen=True, slots=True)
class ProgressView:
    """How far an operation is with one VM."""

    hostname: str
    state: ProgressState
    detail: str | None
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class OperationView:
    """An operation with its progress per VM."""

    id: int
    pool_id: int
    pool: str
    kind: OperationKind
    status: OperationStatus
    reason: str | None
    requested_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    attempt: int
    progress: tuple[ProgressView, ...]

    @property
    def hostnames(self) -> tuple[str, ...]:
        """The VMs it is about."""
        return tuple(each.hostname for each in self.progress)


@dataclass(frozen=True, slots=True)
class LogLineView:
    """One line of a log; ``id`` only grows, so that a page can ask for what came after it.

    ``level`` is one of debug, info, warn, error, or gap: then ``message`` says how many lines are not here.
    """

    id: int
    at: datetime
    level: str
    source: str
    message: str


@dataclass(frozen=True, slots=True)
class EventView:
    """One line of history."""

    id: int
    at: datetime
    actor: str
    address: str | None
    kind: str
    message: str
    pool_id: int | None
    vm_id: int | None
    claim_id: int | None
    operation_id: int | None


@dataclass(frozen=True, slots=True)
class SampleView:
    """One point of a VM's charts; percentages from 0 to 100, temperature in °C."""

    at: datetime
    cpu_pct: float
    memory_pct: float
    disk_free_pct: float
    gpu_pct: float | None
    gpu_memory_pct: float | None
    gpu_temperature_c: float | None
