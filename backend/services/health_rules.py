"""What a heartbeat says about a machine: pure rules, from figures to findings.

A rule is told how bad its own condition is already: what is open ends only a good step beyond the figure at which it
began, so that nothing that wavers around a figure flaps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.services.health_limits import HealthLimits
from backend.states import ConditionKind, Health, Severity

# As full as this, nothing works any more.
FULL_PCT, FULL_GB = 2.0, 1.0
# How far back a figure must go before what it began can end.
EASE, EASE_POINTS, EASE_C = 1.25, 5.0, 5.0
# Xid errors that a program of the researcher's causes by itself, and those after which a GPU still computes rightly:
# the list of NVIDIA's own Kubernetes device plug-in, and NVIDIA's catalogue of Xid errors.
_OF_PROGRAMS = frozenset({13, 31, 43, 45, 68, 109})
_BEARABLE = frozenset({63, 92, 94})
_XIDS = {
    48: "a memory error that could not be corrected",
    63: "a bad row of memory was replaced",
    74: "its link to the other GPUs fails",
    79: "it has fallen off the bus",
    92: "many corrected memory errors",
    94: "a memory error that hit one program",
    95: "a memory error that may have hit everything",
    119: "its own processor does not answer",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a machine at one heartbeat. What its agent does not tell is None. Percentages from 0 to 100."""

    memory_pct: float = 0.0
    disk_free_pct: float = 100.0
    disk_free_gb: float | None = None
    gpus: Sequence[Mapping[str, Any]] = ()
    gpus_expected: int = 0
    container: Mapping[str, str] | None = None
    skew_s: float | None = None
    agent_version: str | None = None
    is_ready: bool = True
    is_in_use: bool = False
    health: Health = Health.HEALTHY
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, said as a reason is: without a capital.

    ``key`` differs where the sentence must be told anew, not with every figure in it.
    """

    kind: ConditionKind
    severity: Severity
    sentence: str
    key: str = ""


Rule = Callable[[Facts, HealthLimits, Severity | None], Finding | None]

TITLES: Mapping[ConditionKind, str] = {
    ConditionKind.GPU_LOST: "GPU lost",
    ConditionKind.GPU_MISSING: "GPU missing",
    ConditionKind.GPU_ERRORS: "GPU errors",
    ConditionKind.GPU_HOT: "GPU hot",
    ConditionKind.GPU_THROTTLED: "GPU slowed down",
    ConditionKind.DISK: "Disk nearly full",
    ConditionKind.MEMORY: "Memory nearly full",
    ConditionKind.CONTAINER: "Container down",
    ConditionKind.CLOCK: "Clock wrong",
    ConditionKind.AGENT_OLD: "Agent of another version",
    ConditionKind.SILENT: "Unreachable",
    ConditionKind.REPORTED: "Reported by its agent",
}
REMEDIES: Mapping[ConditionKind, str] = {
    ConditionKind.GPU_LOST: "Reboot the machine; if the GPU stays away, destroy it and launch another.",
    ConditionKind.GPU_MISSING: "Repair boots it again. If a GPU was taken out on purpose, set the pool's gpus.",
    ConditionKind.GPU_ERRORS: "Reboot it; if the errors come again, destroy it: results may be wrong.",
    ConditionKind.GPU_HOT: "Look at its fans and its place; move the load to another machine.",
    ConditionKind.GPU_THROTTLED: "Look at its cooling and its power supply; it computes more slowly until then.",
    ConditionKind.DISK: "Have its researcher remove files, or give the pool larger disks.",
    ConditionKind.MEMORY: "Have its researcher end programs, or give the pool larger machines.",
    ConditionKind.CONTAINER: "Look at the workload's log below; repair boots the machine and starts it anew.",
    ConditionKind.CLOCK: "Start time synchronisation on it (chrony, timesyncd); if all are wrong, on this server.",
    ConditionKind.AGENT_OLD: "Nothing presses: it gets the server's agent when it is launched or joins anew.",
    ConditionKind.SILENT: "Nothing, if it comes back within its pool's grace; else repair boots it again.",
    ConditionKind.REPORTED: "The machine's log below says more; repair boots it again.",
}


def find_all(
    facts: Facts, limits: HealthLimits, opened: Mapping[ConditionKind, Severity]
) -> Mapping[ConditionKind, Finding]:
    """All that is wrong now. ``opened``: what was wrong before, and how bad."""
    found = (rule(facts, limits, opened.get(kind)) for kind, rule in RULES.items())
    return {finding.kind: finding for finding in found if finding is not None}


def _gpu_lost(facts: Facts, limits: HealthLimits, was: Severity | None) -> Finding | None:
    lost = [gpu for gpu in facts.gpus if gpu.get("error")]
    if not lost:
        return None
    said = ", ".join(f"GPU {gpu['index']} does not answer ({gpu['error']})" for gpu in lost)
    where = ", while the machine is in use" if facts.is_in_use else ""
    return Finding(ConditionKind.GPU_LOST, Severity.CRITICAL, said + where, _numbers(lost))


def _gpu_missing(facts: Facts, limits: HealthLimits, was: Severity | None) -> Finding | None:
    # Before it is ready, a driver may still be loading.
    number, expected = len(facts.gpus), facts.gpus_expected
    if number >= expected or not (facts.is_ready or was):
        return None
    said = "its GPU is not there" if expected == 1 else f"only {number} of {expected} GPUs are there"
    return Finding(ConditionKind.GPU_MISSING, Severity.CRITICAL, said, f"{number}/{expected}")


def _gpu_errors(facts: Facts, limits: HealthLimits, was: Severity | None) -> Finding | None:
    said, severity, keys = [], Severity.WARNING, []
    for gpu in facts.gpus:
        for xid in gpu.get("xids") or ():
            if xid in _OF_PROGRAMS:
                continue
            what = f" ({_XIDS[xid]})" if xid in _XIDS else ""
            said.append(f"GPU {gpu['index']} reported Xid {xid}{what}")
            keys.append(f"{gpu['index']}x{xid}")
            severity = severity if xid in _BEARABLE else Severity.CRITICAL
        if gpu.get("ecc_uncorrected"):
            said.append(f"GPU {gpu['index']} has memory errors that could not be corrected")
            keys.append(f"{gpu['index']}e")
            severity = Severity.CRITICAL
    return Finding(ConditionKind.GPU_ERRORS, severity, "; ".join(said), ",".join(keys)) if said else None


def _gpu_hot(facts: Facts, limits: HealthLimits, was: Severity | None) -> Finding | None:
    bar = limits.hot_c - (EASE_C if was else 0)
    hot = [gpu for gpu in facts.gpus if (gpu.get("temperature_c") or 0) >= bar]
    if not hot:
        return None
    said = ", ".join(f"GPU {gpu['index']} is at {gpu['temperature_c']:.0f} °C" for gpu in hot)
    return Finding(ConditionKind.GPU_HOT, Severity.WARNING, f"{said}; {limits.hot_c:g} °C is too hot")


def _gpu_throttled(facts: Facts, limits: HealthLimits, was: Severity | None) -> Finding | None:
    slow = [gpu for gpu in facts.gpus if gpu.get("throttle")]
    said = ", ".join(f"GPU {gpu['index']} slows itself down ({' and '.join(gpu['throttle'])})" for gpu in slow)
    return Finding(ConditionKind.GPU_THROTTLED, Severity.WARNING, said, _numbers(slow)) if slow else None


def _disk(facts: Facts, limits: HealthLimits, was: Severity | None) -> Finding | None:
    """A few percent of a large disk are still plenty: both figures must be low."""
    pct, gb = facts.disk_free_pct, facts.disk_free_gb

    def is_below(pct_bar: float, gb_bar: float, *, is_open: bool) -> bool:
        ease = EASE if is_open else 1.0
        return pct < pct_bar * ease and (gb is None or gb < gb_bar * ease)

    # Without the size nobody knows whether it is the end.
    is_full = gb is not None and is_below(FULL_PCT, FULL_GB, is_open=was is Severity.CRITICAL)
    if not is_full and not is_below(limits.disk_free_pct, limits.disk_free_gb, is_open=was is not None):
        return None
    severity = Severity.CRITICAL if is_full else Severity.WARNING
    return Finding(ConditionKind.DISK, severity, f"only {pct:.0f} % of the disk is free")


def _memory(facts: Facts, limits: HealthLimits, was: Severity | None) -> Finding | None:
    if facts.memory_pct < limits.memory_pct - (EASE_POINTS if was else 0):
        return None
    return Finding(ConditionKind.MEMORY, Severity.WARNING, f"{facts.memory_pct:.0f} % of the memory is in use")


def _container(facts: Facts, limits: HealthLimits, was: Severity | None) -> Finding | None:
    state = (facts.container or {}).get("state", "running")
    if facts.container is None or state == "running":
        return None
    name = facts.container.get("name", "")
    if state == "restarting":
        said = f"the container {name} ended and is starting again"
        return Finding(ConditionKind.CONTAINER, Severity.WARNING, said, state)
    return Finding(ConditionKind.CONTAINER, Severity.CRITICAL, f"the container {name} is {state}", state)


def _clock(facts: Facts, limits: HealthLimits, was: Severity | None) -> Finding | None:
    skew_s = facts.skew_s
    if skew_s is None or abs(skew_s) < limits.clock_skew_s / (EASE if was else 1):
        return None
    amount = f"{abs(skew_s):.0f} s" if abs(skew_s) < 120 else f"{abs(skew_s) / 60:.0f} min"
    way = "behind" if skew_s > 0 else "ahead"
    return Finding(ConditionKind.CLOCK, Severity.INFO, f"its clock is {amount} {way} of this server's", way)


def _agent_old(facts: Facts, limits: HealthLimits, was: Severity | None) -> Finding | None:
    ours, theirs = limits.agent_version, facts.agent_version
    if not ours or not theirs or ours == theirs:
        return None
    said = f"its agent is version {theirs}, this server's is {ours}"
    return Finding(ConditionKind.AGENT_OLD, Severity.INFO, said, f"{ours} {theirs}")


def _reported(facts: Facts, limits: HealthLimits, was: Severity | None) -> Finding | None:
    if facts.health is Health.HEALTHY and not facts.reasons:
        return None
    severity = {Health.UNHEALTHY: Severity.CRITICAL, Health.DEGRADED: Severity.WARNING}.get(facts.health, Severity.INFO)
    said = "; ".join(facts.reasons) or f"{facts.health}; it does not say why"
    return Finding(ConditionKind.REPORTED, severity, said, said)


def _numbers(gpus: Sequence[Mapping[str, Any]]) -> str:
    return ",".join(str(gpu["index"]) for gpu in gpus)


RULES: Mapping[ConditionKind, Rule] = {
    ConditionKind.GPU_LOST: _gpu_lost,
    ConditionKind.GPU_MISSING: _gpu_missing,
    ConditionKind.GPU_ERRORS: _gpu_errors,
    ConditionKind.GPU_HOT: _gpu_hot,
    ConditionKind.GPU_THROTTLED: _gpu_throttled,
    ConditionKind.DISK: _disk,
    ConditionKind.MEMORY: _memory,
    ConditionKind.CONTAINER: _container,
    ConditionKind.CLOCK: _clock,
    ConditionKind.AGENT_OLD: _agent_old,
    ConditionKind.REPORTED: _reported,
}
