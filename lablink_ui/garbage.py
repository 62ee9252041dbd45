"""Garbage: a full collection holds up everybody, with many pages for half a second; it waits for a quiet moment.

Left to itself, Python makes one whenever what lives has grown by a quarter: again and again while a class arrives. And
it looks through the young by how many more were made than have gone: where pages come and go alike, 30,000 come
together, and hold everybody for 20 ms. Here they are looked through by the clock, each once.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import time

from nicegui import Client

# What lives is looked through in one go, at 0.4 us for each object: the 2,000 of so much time hold everybody for 1 ms.
YOUNG_S = 0.05
# Made, less what has gone, before the old are worth a look.
ENOUGH = 1_000_000
# The young are looked through so often before there is a look at whether to collect all; once a second.
ROUNDS = 20
# Of one core, over these rounds.
QUIET_SHARE = 0.15
# Pages leave nothing that waits for a collection (cycles.py); the rest is little, and can wait.
SOONEST_S, LATEST_S = 30.0, 120.0
# By what is measured; before the first one among so many pages, by how many they are: 2,400 objects each.
PAGE_S = 0.003
# A class is quiet between any two arrivals: of a thousand requests one, at most, shall find a collection in its way.
MOST_SHARE = 0.001
# So much of it is quiet: time to give back what is free.
REST_S = 10.0


def hold_back_collections() -> None:
    """To be called once all is loaded: what lives now lives for ever, and is never looked through again.

    From here on only ``collect_when_quiet`` collects.
    """
    gc.collect()
    gc.freeze()
    gc.disable()


async def collect_when_quiet() -> None:
    """Collects the young again and again, and all once there is a reason to and little else to do. For ever.

    All, too, when that has waited for too long.
    """
    collected_at = wanted_at = time.monotonic()
    takes_s, made = 0.0, 0
    while True:
        began_at, worked_s = time.monotonic(), time.process_time()
        made += await _collect_young()
        now = time.monotonic()
        if made < ENOUGH:
            wanted_at = now
            continue
        fair_s = max(takes_s, PAGE_S * len(Client.instances)) / MOST_SHARE
        if now - collected_at < max(SOONEST_S, fair_s):
            continue
        is_quiet = time.process_time() - worked_s < QUIET_SHARE * (now - began_at)
        if is_quiet or now - wanted_at > max(LATEST_S, fair_s):
            gc.collect()
            collected_at = wanted_at = time.monotonic()
            takes_s, made = collected_at - now, 0


async def _collect_young() -> int:
    """In so many rounds; returns how many more were made than have gone."""
    made = 0
    for _ in range(ROUNDS):
        await asyncio.sleep(YOUNG_S)
        made += gc.get_count()[0]
        gc.collect(0)
    return made


async def give_back_when_quiet() -> None:
    """Gives the system back what is free, again and again while there is little to do: of 410 MB after a class, 90.

    For ever. What a crowd needed for a moment lies free between what stays, and glibc keeps it for the next crowd. Some
    of a crowd's pages go half a minute after the others; to look for what is free where nothing is takes 0.5 ms.
    """
    while True:
        worked_s = time.process_time()
        await asyncio.sleep(REST_S)
        if time.process_time() - worked_s < QUIET_SHARE * REST_S:
            await asyncio.to_thread(_trim)


def _trim() -> None:
    # Only glibc has it; others give back by themselves, or not at all.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
