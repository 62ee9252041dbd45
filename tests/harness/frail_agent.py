"""The real agent, on a machine that tests can break: its clock may be wrong; a stand-in of NVML answers for its GPUs.

No compiler is needed for the stand-in: every function of it is a C function made by ctypes, so that the agent's pynvml
calls it as it calls the driver's library, through pointers to its own structures. What is broken stands in a file:
``{"clock_s": 600, "gpus": [{"lost": true, "xids": [79]}]}``. GPUs are counted when the library is opened; the rest may
change at any time.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from ctypes import POINTER, c_char_p, c_int, c_uint, c_ulonglong, c_void_p
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import pynvml

FILE = "FRAIL_MACHINE_FILE"
LIBRARY = "libnvidia-ml.so.1"
OK, NOT_FOUND, TIMEOUT, LOST = 0, 6, 10, 15
_GIB = 2**30


def main() -> int:
    """Runs the agent with this process's arguments."""
    from agent import main as agent

    broken = Broken(Path(os.environ.pop(FILE)))
    if broken.read("gpus", []):
        pynvml.CDLL = lambda name: Nvml(broken) if name == LIBRARY else ctypes.CDLL(name)
    if offset_s := broken.read("clock_s", 0):
        _shift_clock(offset_s, agent)
    return agent.main(sys.argv[1:])


class Broken:
    """What is broken on this machine, read anew each time."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self, name: str, default: Any) -> Any:
        """One entry of the file."""
        return json.loads(self._file.read_text(encoding="utf-8")).get(name, default)


class Nvml:
    """The library. Its functions are found by their C names, as in the real one; what is not here is not in it."""

    def __init__(self, broken: Broken) -> None:
        self._broken = broken
        self._told = [0] * len(broken.read("gpus", []))
        functions = {
            "nvmlInitWithFlags": ((c_uint,), lambda _: OK),
            "nvmlShutdown": ((), lambda: OK),
            "nvmlDeviceGetCount_v2": ((c_void_p,), lambda to: _put(c_uint, to, len(self._told))),
            "nvmlDeviceGetHandleByIndex_v2": ((c_uint, c_void_p), self._get_handle),
            "nvmlDeviceGetName": ((c_void_p, c_void_p, c_uint), lambda gpu, to, _: _put_text(to, "Stand-in T4")),
            "nvmlDeviceGetUUID": ((c_void_p, c_void_p, c_uint), lambda gpu, to, _: _put_text(to, f"GPU-{gpu}")),
            "nvmlDeviceGetMemoryInfo": ((c_void_p, c_void_p), self._get_memory),
            "nvmlDeviceGetTemperature": ((c_void_p, c_uint, c_void_p), lambda gpu, _, to: _put(c_uint, to, 55)),
            "nvmlEventSetCreate": ((c_void_p,), lambda to: _put(c_void_p, to, 1)),
            "nvmlDeviceRegisterEvents": ((c_void_p, c_ulonglong, c_void_p), lambda *_: OK),
            "nvmlEventSetWait_v2": ((c_void_p, c_void_p, c_uint), self._wait),
            "nvmlErrorString": ((c_int,), lambda _: b"an error of the stand-in"),
        }
        for name, (arguments, function) in functions.items():
            answers = c_char_p if name == "nvmlErrorString" else c_int
            setattr(self, name, ctypes.CFUNCTYPE(answers, *arguments)(function))

    def _get_handle(self, index: int, to: int) -> int:
        if index >= len(self._told):
            return NOT_FOUND
        return LOST if self._gpu(index).get("lost") else _put(c_void_p, to, index + 1)

    def _get_memory(self, gpu: int, to: int) -> int:
        if self._gpu(gpu - 1).get("lost"):
            return LOST
        memory = ctypes.cast(to, POINTER(pynvml.c_nvmlMemory_t)).contents
        memory.total, memory.used, memory.free = 16 * _GIB, 2 * _GIB, 14 * _GIB
        return OK

    def _wait(self, events: int, to: int, timeout_ms: int) -> int:
        """The next Xid that was not told yet."""
        for index, told in enumerate(self._told):
            xids = self._gpu(index).get("xids", [])
            if told < len(xids):
                self._told[index] += 1
                event = ctypes.cast(to, POINTER(pynvml.c_nvmlEventData_t)).contents
                event.device = ctypes.cast(index + 1, pynvml.c_nvmlDevice_t)
                event.eventType, event.eventData = pynvml.nvmlEventTypeXidCriticalError, xids[told]
                return OK
        return TIMEOUT

    def _gpu(self, index: int) -> dict[str, Any]:
        gpus: list[dict[str, Any]] = self._broken.read("gpus", [])
        return gpus[index] if index < len(gpus) else {"lost": True}


def _put(kind: Any, to: int, value: int) -> int:
    ctypes.cast(to, POINTER(kind)).contents.value = value
    return OK


def _put_text(to: int, text: str) -> int:
    ctypes.memmove(to, text.encode() + b"\0", len(text) + 1)
    return OK


def _shift_clock(offset_s: float, agent: Any) -> None:
    """What the agent takes for now is so much later; what it measures, it measures rightly, as on a real machine."""

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.fromtimestamp(time.time(), tz)

    right = time.time
    time.time = lambda: right() + offset_s
    agent.datetime = Shifted


if __name__ == "__main__":
    sys.exit(main())
