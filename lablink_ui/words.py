"""States in people's words, with the tone that goes with each."""

from __future__ import annotations

from backend.services.views import OperationView
from backend.states import (
    AlarmKind,
    CheckStatus,
    ClaimStatus,
    FindingKind,
    OperationKind,
    OperationStatus,
    PoolStatus,
    ProgressState,
    RepairOutcome,
    Rung,
    RunStatus,
    Severity,
    Verdict,
    VmStatus,
)

VM_WORDS: dict[VmStatus, tuple[str, str]] = {
    VmStatus.PROVISIONING: ("Provisioning", "busy"),
    VmStatus.BOOTING: ("Booting", "busy"),
    VmStatus.AVAILABLE: ("Available", "good"),
    VmStatus.IN_USE: ("In use", "info"),
    VmStatus.CLEANING: ("Cleaning", "busy"),
    VmStatus.QUARANTINED: ("Quarantined", "bad"),
    VmStatus.FAILED: ("Failed", "bad"),
    VmStatus.DESTROYING: ("Destroying", "busy"),
    VmStatus.DESTROYED: ("Destroyed", "idle"),
}
CLAIM_WORDS: dict[ClaimStatus, tuple[str, str]] = {
    ClaimStatus.WAITING: ("In line", "busy"),
    ClaimStatus.PREPARING: ("Getting ready", "busy"),
    ClaimStatus.ACTIVE: ("Ready", "good"),
    ClaimStatus.RELEASED: ("Given back", "idle"),
    ClaimStatus.FAILED: ("Ended", "bad"),
    ClaimStatus.EXPIRED: ("Expired", "idle"),
}
OPERATION_WORDS: dict[OperationStatus, tuple[str, str]] = {
    OperationStatus.QUEUED: ("Queued", "idle"),
    OperationStatus.RUNNING: ("Running", "busy"),
    OperationStatus.SUCCEEDED: ("Succeeded", "good"),
    OperationStatus.FAILED: ("Failed", "bad"),
    OperationStatus.CANCELLED: ("Cancelled", "idle"),
}
PROGRESS_WORDS: dict[ProgressState, tuple[str, str]] = {
    ProgressState.PENDING: ("Waiting", "idle"),
    ProgressState.RUNNING: ("Working", "busy"),
    ProgressState.DONE: ("Done", "good"),
    ProgressState.FAILED: ("Failed", "bad"),
}
POOL_WORDS: dict[PoolStatus, tuple[str, str]] = {
    PoolStatus.OPEN: ("Open", "good"),
    PoolStatus.CLOSED: ("Closed", "idle"),
}
# A pool that a rehearsal made.
SIMULATED = ("Rehearsal", "info")
RUN_WORDS: dict[RunStatus, tuple[str, str]] = {
    RunStatus.PLANNED: ("Planned", "idle"),
    RunStatus.RUNNING: ("Running", "good"),
    RunStatus.STOPPING: ("Being given back", "busy"),
    RunStatus.ENDED: ("Over", "idle"),
    RunStatus.MISSED: ("Missed", "bad"),
}
# How a machine does in a rehearsal: its status there.
REHEARSED_WORDS: dict[str, tuple[str, str]] = {
    "waiting": ("Waits for its turn", "idle"),
    "claimed": ("Claimed", "busy"),
    "connected": ("Connected", "busy"),
    "checked": ("Checked", "busy"),
    "given-back": ("Given back", "busy"),
    "passed": ("Passed", "good"),
    "failed": ("Failed", "bad"),
    "skipped": ("Not tried", "warn"),
}
VERDICT_WORDS: dict[Verdict, tuple[str, str]] = {
    Verdict.GO: ("GO", "good"),
    Verdict.NO_GO: ("NO-GO", "bad"),
}
RUNG_WORDS: dict[Rung, str] = {
    Rung.RESTART: "Restart of the workload",
    Rung.REBOOT: "Reboot",
    Rung.REPLACE: "Another machine in its place",
}
REPAIR_WORDS: dict[RepairOutcome | None, tuple[str, str]] = {
    None: ("Under way", "busy"),
    RepairOutcome.SUCCEEDED: ("Helped", "good"),
    RepairOutcome.FAILED: ("Did not help", "bad"),
    RepairOutcome.OVERTAKEN: ("Overtaken", "idle"),
}
KIND_WORDS: dict[OperationKind, str] = {
    OperationKind.LAUNCH: "Launch",
    OperationKind.DESTROY: "Destroy",
    OperationKind.REBUILD: "State rebuild",
}
FINDING_WORDS: dict[FindingKind, str] = {
    FindingKind.GONE: "Gone",
    FindingKind.STRANGER: "Unknown",
    FindingKind.TWIN: "Twice",
    FindingKind.UNMANAGED: "Not in state",
    FindingKind.STATE_LOST: "State lost",
    FindingKind.GHOST: "Only in state",
    FindingKind.STOPPED: "Off",
    FindingKind.CHANGED: "Changed",
    FindingKind.DISOWNED: "Disowned",
}
# Where lines of a machine's log come from, where people call it otherwise.
SOURCE_WORDS: dict[str, str] = {"cloud-init": "boot", "startup": "startup script", "container": "image"}
SEVERITY_WORDS: dict[Severity, tuple[str, str]] = {
    Severity.INFO: ("Note", "info"),
    Severity.WARNING: ("Warning", "warn"),
    Severity.CRITICAL: ("Critical", "bad"),
}
ALARM_WORDS: dict[AlarmKind, str] = {
    AlarmKind.MACHINE_FAILED: "Machines failed",
    AlarmKind.REFILL: "Cannot refill",
    AlarmKind.LINE: "Line",
    AlarmKind.OPERATION_FAILED: "Operation failed",
    AlarmKind.BUDGET: "Budget",
    AlarmKind.HEALING: "Healing stopped",
    AlarmKind.SERVER: "Server",
}
CHECK_WORDS: dict[CheckStatus, tuple[str, str]] = {
    CheckStatus.OK: ("OK", "good"),
    CheckStatus.WARNING: ("Warning", "busy"),
    CheckStatus.PROBLEM: ("Problem", "bad"),
}


def what_of(operation: OperationView) -> str:
    """What an operation is about: ``Launch 3 machines``; one that touches no machine is its kind alone."""
    number = len(operation.progress)
    return f"{KIND_WORDS[operation.kind]} {count(number, 'machine')}" if number else KIND_WORDS[operation.kind]


def count(number: int, noun: str) -> str:
    """``1 machine``, ``2 machines``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def people(number: int) -> str:
    """``1 person``, ``2 people``."""
    return f"{number:,} {'person' if number == 1 else 'people'}"


def sentence(reason: str) -> str:
    """A reason as people read it: its first letter is a capital, the rest is left as it is."""
    return reason[:1].upper() + reason[1:]


def money(dollars: float) -> str:
    """``$1.20``; fractions of a cent are shown where there is nothing else."""
    return f"${dollars:,.2f}" if dollars >= 0.01 or dollars == 0 else f"${dollars:,.4f}"


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 5 s``, ``2 h 10 min``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60} min"


def span(seconds: float) -> str:
    """A whole time as people say it: ``90 seconds``, ``45 minutes``, ``2 hours``, ``1 day``."""
    for length, noun in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= length and seconds % length == 0:
            return count(int(seconds // length), noun)
    return count(int(seconds), "second") if seconds < 120 else count(round(seconds / 60), "minute")


def person(actor: str) -> str:
    """``admin:kim`` as people say it: ``kim``; rules and agents keep their kind."""
    kind, _, name = actor.partition(":")
    if kind in {"admin", "researcher"}:
        return name
    return f"{kind} {name.replace('_', ' ') if kind == 'rule' else name}".strip()
