"""One table a file; importing this package fills ``Base.metadata``."""

from backend.models.admission import JoinCode, RosterEntry
from backend.models.alarm import Alarm, AlarmDelivery
from backend.models.base import Base
from backend.models.budget import Budget
from backend.models.claim import Claim, SeatLink
from backend.models.command import Command
from backend.models.enrolment import Enrolment
from backend.models.event import Event
from backend.models.finding import Finding
from backend.models.heartbeat import HealthAverage, HealthSample, LatestHeartbeat
from backend.models.operation import Operation, OperationLog, OperationVm
from backend.models.pool import Pool
from backend.models.price import Price
from backend.models.rehearsal import Rehearsal, RehearsalMachine
from backend.models.repair import HealingBreaker, Repair
from backend.models.schedule import Schedule, ScheduleRun
from backend.models.seat_browser import SeatBrowser
from backend.models.terminal import Terminal, TerminalWatch
from backend.models.user import AdminSession, ApiToken, Invite, LoginFailure, User
from backend.models.vm import Vm
from backend.models.vm_log import VmLog, VmLogSource

__all__ = [
    "AdminSession",
    "Alarm",
    "AlarmDelivery",
    "ApiToken",
    "Base",
    "Budget",
    "Claim",
    "Command",
    "Enrolment",
    "Event",
    "Finding",
    "HealingBreaker",
    "HealthAverage",
    "HealthSample",
    "Invite",
    "JoinCode",
    "LatestHeartbeat",
    "LoginFailure",
    "Operation",
    "OperationLog",
    "OperationVm",
    "Pool",
    "Price",
    "Rehearsal",
    "RehearsalMachine",
    "Repair",
    "RosterEntry",
    "Schedule",
    "ScheduleRun",
    "SeatBrowser",
    "SeatLink",
    "Terminal",
    "TerminalWatch",
    "User",
    "Vm",
    "VmLog",
    "VmLogSource",
]
