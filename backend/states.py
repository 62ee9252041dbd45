"""The states of things and the moves between them that are legal.

A status is stored as text with a CHECK constraint made from these enums, and is moved only by
``backend.services.moves.move``, which refuses what these tables do not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class VmStatus(StrEnum):
    """Where a VM stands in its life."""

    PROVISIONING = "provisioning"  # a row exists; Terraform has not made the machine yet
    BOOTING = "booting"  # the machine exists; its agent has not yet said "ready and healthy"
    AVAILABLE = "available"  # may be claimed
    IN_USE = "in-use"  # an open claim holds it
    CLEANING = "cleaning"  # the former session is being removed
    QUARANTINED = "quarantined"  # kept out of the pool for a look; may hold data
    FAILED = "failed"  # out of the pool, with a reason
    DESTROYING = "destroying"  # an operation is taking it away
    DESTROYED = "destroyed"  # gone; the row stays as history


class ClaimStatus(StrEnum):
    """Where a researcher's hold on a VM stands."""

    WAITING = "waiting"  # in line, no VM yet
    PREPARING = "preparing"  # a VM is held; its agent is making the session
    ACTIVE = "active"  # the researcher can work
    RELEASED = "released"  # given back, or taken back by an admin
    FAILED = "failed"  # the session could not be made, or the VM is gone
    EXPIRED = "expired"  # ended by time


class OperationStatus(StrEnum):
    """Where one Terraform run stands."""

    QUEUED = "queued"  # committed; waits for the pool's lock
    RUNNING = "running"  # a worker holds its lease
    SUCCEEDED = "succeeded"  # everything asked for was done
    FAILED = "failed"  # something was not done; the reason says what
    CANCELLED = "cancelled"  # an admin stopped it; what was made is known


class OperationKind(StrEnum):
    """What one Terraform run is for."""

    LAUNCH = "launch"  # make new VMs
    DESTROY = "destroy"  # take VMs away
    REBUILD = "rebuild"  # make the state say what exists; no VM is touched


class CommandStatus(StrEnum):
    """Where a piece of work for one agent stands."""

    QUEUED = "queued"  # stored; the agent has not fetched it
    DELIVERED = "delivered"  # fetched at least once; no result yet
    SUCCEEDED = "succeeded"  # the agent says done
    FAILED = "failed"  # the agent says it could not
    EXPIRED = "expired"  # its deadline passed, or what it was for is over


class CommandKind(StrEnum):
    """The kinds of work an agent knows."""

    PREPARE_SESSION = "prepare_session"  # make the researcher's session
    END_SESSION = "end_session"  # remove it, verified
    REBOOT = "reboot"  # boot again (machines that Terraform does not own)
    RESTART = "restart"  # end and begin the workload again, on the machine as it runs
    STOP = "stop"  # end the agent for good (a joined machine leaves)
    OPEN_TERMINAL = "open_terminal"  # start a shell in the session and dial in with it
    START_CRD = "start_crd"  # register Chrome Remote Desktop for the session
    CHECK_SESSION = "check_session"  # for a rehearsal: whether the session is what people need


class ProgressState(StrEnum):
    """How far one operation is with one VM."""

    PENDING = "pending"  # Terraform has not reached it
    RUNNING = "running"  # Terraform is at it
    DONE = "done"  # made, or taken away
    FAILED = "failed"  # could not; the detail says why


class Origin(StrEnum):
    """Who made a VM."""

    TERRAFORM = "terraform"  # our operation; in the pool's Terraform state
    JOINED = "joined"  # somebody's own machine that enrolled itself


class PoolStatus(StrEnum):
    """Whether a pool takes claims and launches."""

    OPEN = "open"  # both
    CLOSED = "closed"  # neither; what runs keeps running until destroyed


class Access(StrEnum):
    """Who may claim in a pool."""

    OPEN = "open"  # anyone with the link
    CODE = "code"  # whoever knows the join code
    ROSTER = "roster"  # whoever has a personal link
    OIDC = "oidc"  # whoever the organisation's sign-in vouches for


class CheckStatus(StrEnum):
    """How one thing stands that a launch depends on."""

    OK = "ok"  # looked at, and well
    WARNING = "warning"  # may go wrong, or could not be looked at
    PROBLEM = "problem"  # will go wrong


class FindingKind(StrEnum):
    """How the database, Terraform's state and the cloud can disagree."""

    GONE = "gone"  # a VM of ours is not in the cloud any more
    STRANGER = "stranger"  # a machine tagged as ours that no row knows
    TWIN = "twin"  # a second machine with the name of a VM
    UNMANAGED = "unmanaged"  # a VM that is not in Terraform's state
    STATE_LOST = "state-lost"  # the state is not there, or cannot be read, though the pool has machines
    GHOST = "ghost"  # the state holds a machine that nobody knows
    STOPPED = "stopped"  # a VM that is switched off
    CHANGED = "changed"  # type or tags are not what the state says
    DISOWNED = "disowned"  # a VM whose tags say that it is somebody else's


class Mend(StrEnum):
    """What one button does about a finding."""

    MARK_FAILED = "mark-failed"  # the VM fails; a seat on it moves on; it is replaced, or can be destroyed
    ADOPT = "adopt"  # a row is made, quarantined: nobody gets it before somebody looked
    DESTROY = "destroy"  # the machine is taken away for good
    START = "start"  # it is switched on
    REBUILD = "rebuild"  # the state is made to say what exists


class CrdStatus(StrEnum):
    """How far Chrome Remote Desktop is with a seat."""

    WAITING = "waiting"  # the code is on its way to the agent
    STARTING = "starting"  # the agent registers and starts the host
    READY = "ready"  # the researcher can connect
    FAILED = "failed"  # it did not work; the detail says why, and another paste may


class RunStatus(StrEnum):
    """Where one class of a schedule stands."""

    PLANNED = "planned"  # its time has not come
    RUNNING = "running"  # its machines were launched; people may work
    STOPPING = "stopping"  # its time is over; machines go as their seats end
    ENDED = "ended"  # nothing of it is left
    MISSED = "missed"  # it was not begun; the note says why


class RehearsalStatus(StrEnum):
    """Where the rehearsal of a class stands."""

    RUNNING = "running"  # robots try the machines, or the arrivals are replayed
    FINISHED = "finished"  # its verdict is there
    ENDED = "ended"  # broken off; the reason says why


class RehearsalStep(StrEnum):
    """How far a rehearsal has come with one machine; whether that went well is said beside it."""

    WAITING = "waiting"  # no robot has it yet
    CLAIMED = "claimed"  # a robot holds it
    CONNECTED = "connected"  # what a seat offers was opened
    CHECKED = "checked"  # the pool's check command has ended
    GIVEN_BACK = "given-back"  # it is being cleaned
    CLEAN = "clean"  # and may be offered again
    SKIPPED = "skipped"  # it was not tried; the problem says why


class Verdict(StrEnum):
    """Whether a class may come."""

    GO = "go"  # nothing speaks against it
    NO_GO = "no-go"  # something does, and is named


class AlarmKind(StrEnum):
    """What an alarm is about."""

    MACHINE_FAILED = "machine-failed"  # machines of a pool have failed and nothing mends them, or not in time
    REFILL = "refill"  # a pool that shall hold free machines does not get them
    LINE = "line"  # too many people wait for a machine, or one of them for too long
    OPERATION_FAILED = "operation-failed"  # a Terraform run failed, and none after it has done better
    BUDGET = "budget"  # a good part of a pool's budget is spent, or all of it
    HEALING = "healing"  # attempts to mend the machines of a pool fail alike, and were stopped
    SERVER = "server"  # a server process is unwell: slow, deaf, or short of disk


class AlarmNews(StrEnum):
    """What is told of an alarm."""

    OPENED = "opened"  # its cause is there
    WORSENED = "worsened"  # it matters more than before
    RESOLVED = "resolved"  # its cause is gone


class Channel(StrEnum):
    """How alarms leave the house."""

    WEBHOOK = "webhook"  # posted to an address
    EMAIL = "email"  # sent by SMTP


class DeliveryStatus(StrEnum):
    """Where a message about an alarm stands."""

    QUEUED = "queued"  # to be sent, or to be tried again
    SENT = "sent"  # taken by the other side
    GIVEN_UP = "given-up"  # not taken for a day


class Rung(StrEnum):
    """How a machine is mended, the mildest first."""

    RESTART = "restart"  # its agent ends and begins the workload again
    REBOOT = "reboot"  # it boots again, and keeps what it holds
    REPLACE = "replace"  # it is destroyed, and another one launched in its place


class RepairOutcome(StrEnum):
    """How an attempt to mend a machine ended."""

    SUCCEEDED = "succeeded"  # the machine, or the one in its place, is fit for use
    FAILED = "failed"  # it is not; the reason says why
    OVERTAKEN = "overtaken"  # somebody or something else decided what becomes of the machine


class RepairFault(StrEnum):
    """In which way an attempt failed: those that fail in the same way are alike."""

    NOT_MADE = "not-made"  # the launch of the new machine failed
    NOT_WELL = "not-well"  # the machine, or the one in its place, is not fit for use
    NOT_DESTROYED = "not-destroyed"  # the machine could not be taken away


class Phase(StrEnum):
    """How far an agent is with its machine (its own word, in heartbeats)."""

    STARTING = "starting"  # the agent runs, nothing done yet
    PREPARING = "preparing"  # repository, startup script, workload
    READY = "ready"  # everything configured is there
    STOPPING = "stopping"  # the agent is on its way out


class Health(StrEnum):
    """An agent's verdict on its machine."""

    HEALTHY = "healthy"  # fit to be offered
    DEGRADED = "degraded"  # works, with a reason to look
    UNHEALTHY = "unhealthy"  # not fit to be offered


class Severity(StrEnum):
    """How much a condition of a machine or an alarm matters, the mildest first."""

    INFO = "info"  # good to know; nothing follows from it
    WARNING = "warning"  # somebody should look today; a machine is degraded
    CRITICAL = "critical"  # somebody should look now; a machine is unhealthy, not fit to be offered

    @property
    def rank(self) -> int:
        """Higher for what matters more."""
        return list(Severity).index(self)


class ConditionKind(StrEnum):
    """What can be wrong with a machine."""

    GPU_LOST = "gpu-lost"  # a GPU that was there a moment ago does not answer
    GPU_MISSING = "gpu-missing"  # fewer GPUs than there should be
    GPU_ERRORS = "gpu-errors"  # Xid errors, or memory errors that could not be corrected
    GPU_HOT = "gpu-hot"  # hotter than the pool allows
    GPU_THROTTLED = "gpu-throttled"  # slows itself down, for heat or for lack of power
    DISK = "disk"  # nearly full
    MEMORY = "memory"  # nearly used up
    CONTAINER = "container"  # the workload's container is dead, or starts again and again
    CLOCK = "clock"  # its clock is not ours
    AGENT_OLD = "agent-old"  # its agent is of another version than the server
    SILENT = "silent"  # nothing was heard for too long
    REPORTED = "reported"  # what its agent says in its own words


class Role(StrEnum):
    """What an admin may do."""

    VIEWER = "viewer"  # look
    OPERATOR = "operator"  # launch, destroy, repair, release
    ADMIN = "admin"  # all of that, and pools, users, tokens

    @property
    def rank(self) -> int:
        """Higher for who may do more."""
        return list(Role).index(self)


_V, _C, _O, _M = VmStatus, ClaimStatus, OperationStatus, CommandStatus

VM_MOVES: Mapping[VmStatus, frozenset[VmStatus]] = {
    _V.PROVISIONING: frozenset({_V.BOOTING, _V.FAILED, _V.DESTROYING}),
    _V.BOOTING: frozenset({_V.AVAILABLE, _V.FAILED, _V.DESTROYING}),
    _V.AVAILABLE: frozenset({_V.IN_USE, _V.BOOTING, _V.QUARANTINED, _V.FAILED, _V.DESTROYING}),
    # Quarantined: its seat moved on without it, and what is on it is kept.
    _V.IN_USE: frozenset({_V.CLEANING, _V.QUARANTINED, _V.FAILED, _V.DESTROYING}),
    _V.CLEANING: frozenset({_V.AVAILABLE, _V.BOOTING, _V.QUARANTINED, _V.FAILED, _V.DESTROYING}),
    # In use: it answers again, and the seat that left it has no other machine yet.
    _V.QUARANTINED: frozenset({_V.BOOTING, _V.IN_USE, _V.FAILED, _V.DESTROYING}),
    _V.FAILED: frozenset({_V.PROVISIONING, _V.BOOTING, _V.QUARANTINED, _V.DESTROYING}),
    _V.DESTROYING: frozenset({_V.DESTROYED, _V.FAILED}),
    _V.DESTROYED: frozenset(),
}

CLAIM_MOVES: Mapping[ClaimStatus, frozenset[ClaimStatus]] = {
    _C.WAITING: frozenset({_C.PREPARING, _C.RELEASED, _C.FAILED, _C.EXPIRED}),
    _C.PREPARING: frozenset({_C.ACTIVE, _C.WAITING, _C.RELEASED, _C.FAILED, _C.EXPIRED}),
    # Back to preparing: the seat moved to another machine; to waiting: its machine died, and none is free.
    _C.ACTIVE: frozenset({_C.PREPARING, _C.WAITING, _C.RELEASED, _C.FAILED, _C.EXPIRED}),
    _C.RELEASED: frozenset(),
    _C.FAILED: frozenset(),
    _C.EXPIRED: frozenset(),
}

OPERATION_MOVES: Mapping[OperationStatus, frozenset[OperationStatus]] = {
    _O.QUEUED: frozenset({_O.RUNNING, _O.CANCELLED, _O.FAILED}),
    _O.RUNNING: frozenset({_O.SUCCEEDED, _O.FAILED, _O.CANCELLED}),
    _O.SUCCEEDED: frozenset(),
    _O.FAILED: frozenset(),
    _O.CANCELLED: frozenset(),
}

COMMAND_MOVES: Mapping[CommandStatus, frozenset[CommandStatus]] = {
    _M.QUEUED: frozenset({_M.DELIVERED, _M.EXPIRED}),
    _M.DELIVERED: frozenset({_M.SUCCEEDED, _M.FAILED, _M.EXPIRED}),
    _M.SUCCEEDED: frozenset(),
    _M.FAILED: frozenset(),
    _M.EXPIRED: frozenset(),
}

OPEN_CLAIM = frozenset({_C.WAITING, _C.PREPARING, _C.ACTIVE})
HOLDING_CLAIM = frozenset({_C.PREPARING, _C.ACTIVE})
OPEN_OPERATION = frozenset({_O.QUEUED, _O.RUNNING})
OPEN_COMMAND = frozenset({_M.QUEUED, _M.DELIVERED})
GONE_VM = frozenset({_V.DESTROYED})
