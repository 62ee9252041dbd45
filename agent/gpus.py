"""The machine's GPUs, by NVML. Without a driver there are none: that is a fact, not an error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

# What a heartbeat takes.
MAX_GPUS, MAX_XIDS, MAX_ERROR = 64, 64, 200


class Gpus:
    """NVML, loaded only where there is a driver, and anew after it failed."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._count = 0
        self._xids = _Xids()

    def read(self) -> list[dict[str, Any]]:
        """Each GPU in the words of the wire; one that does not answer has its index and an ``error``."""
        if self._nvml is None:
            # Each time anew: the driver may be loaded after us.
            self._load()
        gpus = [self._read_or_say_why(index) for index in range(self._count)]
        if any("error" in gpu for gpu in gpus):
            # A driver that was loaded anew, or a GPU that came back, is seen only by who asks anew.
            self._unload()
        return gpus

    def _load(self) -> None:
        try:
            import pynvml

            pynvml.nvmlInit()
            # What was there stays expected, though the driver may not count it any more.
            self._count = max(self._count, min(pynvml.nvmlDeviceGetCount(), MAX_GPUS))
            self._nvml = pynvml
        except Exception:  # no driver, no library, no GPU: all the same fact
            return
        self._xids.listen(self._nvml, self._count)

    def _unload(self) -> None:
        nvml, self._nvml = self._nvml, None
        with contextlib.suppress(Exception):
            nvml.nvmlShutdown()

    def _read_or_say_why(self, index: int) -> dict[str, Any]:
        if self._nvml is None:
            return {"index": index, "error": "the driver does not answer"}
        try:
            return self._read(index)
        except Exception as exc:
            return {"index": index, "error": str(exc)[:MAX_ERROR]}

    def _read(self, index: int) -> dict[str, Any]:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        return {
            "index": index,
            "name": _text(nvml.nvmlDeviceGetName(handle)),
            "uuid": uuid,
            "utilisation_pct": _maybe(lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
            "memory_used_mb": round(memory.used / 2**20, 1),
            "memory_total_mb": round(memory.total / 2**20, 1),
            "temperature_c": _maybe(lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
            "ecc_uncorrected": _maybe(lambda: int(_count_ecc(nvml, handle))),
            "throttle": _maybe(lambda: _why_throttled(nvml, handle)) or [],
            "xids": self._xids.list(nvml, uuid),
        }


class _Xids:
    """The numbers of the errors that the driver tells of, by GPU, since we began to listen: since this boot."""

    def __init__(self) -> None:
        self._events: Any = None
        self._seen: dict[str, list[int]] = {}

    def listen(self, nvml: Any, count: int) -> None:
        """Begins to listen, where a GPU can tell."""
        try:
            self._events = nvml.nvmlEventSetCreate()
        except Exception:
            self._events = None
            return
        for index in range(count):
            with contextlib.suppress(Exception):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, self._events)

    def list(self, nvml: Any, uuid: str) -> list[int]:
        """All there were on a GPU, each once, as they came."""
        # Waits for nothing: where there is none left, the answer is an error, "timeout".
        with contextlib.suppress(Exception):
            for _ in range(MAX_XIDS if self._events is not None else 0):
                event = nvml.nvmlEventSetWait_v2(self._events, 0)
                of = self._seen.setdefault(_text(nvml.nvmlDeviceGetUUID(event.device)), [])
                if event.eventData not in of and len(of) < MAX_XIDS:
                    of.append(int(event.eventData))
        return list(self._seen.get(uuid, ()))


def _count_ecc(nvml: Any, handle: Any) -> int:
    """Memory errors since the driver was loaded that could not be corrected."""
    return int(
        nvml.nvmlDeviceGetTotalEccErrors(handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC)
    )


def _why_throttled(nvml: Any, handle: Any) -> list[str]:
    """Why it slows itself down, but for what is no trouble: idleness, and the limit of power that it always has."""
    bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    heat = nvml.nvmlClocksThrottleReasonHwThermalSlowdown | nvml.nvmlClocksThrottleReasonSwThermalSlowdown
    power = nvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown
    return [word for word, mask in (("heat", heat), ("power", power)) if bits & mask]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _maybe(read: Callable[[], Any]) -> Any:
    """What a GPU does not tell is unknown, not zero."""
    try:
        return read()
    except Exception:
        return None
