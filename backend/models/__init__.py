"""One table a file; importing this package fills ``Base.metadata``."""

from backend.models.base import Base
from backend.models.claim import Claim, SeatLink
from backend.models.command import Command
from backend.models.enrolment import Enrolment
from backend.models.event import Event
from backend.models.heartbeat import HealthSample, LatestHeartbeat
from backend.models.operation import Operation, OperationLog, OperationVm
from backend.models.pool import Pool
from backend.models.user import AdminSession, ApiToken, LoginFailure, User
from backend.models.vm import Vm
from backend.models.vm_log import VmLog

__all__ = [
    "AdminSession",
    "ApiToken",
    "Base",
    "Claim",
    "Command",
    "Enrolment",
    "Event",
    "HealthSample",
    "LatestHeartbeat",
    "LoginFailure",
    "Operation",
    "OperationLog",
    "OperationVm",
    "Pool",
    "SeatLink",
    "User",
    "Vm",
    "VmLog",
]
