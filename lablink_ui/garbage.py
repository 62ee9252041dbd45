"""Garbage: a full collection holds up everybody, with many pages for half a second; it waits for a quiet moment.

Left to itself, Python makes one whenever what lives has grown by a quarter: again and again while a class arrives.
"""

from __future__ import annotations

import asyncio
import gc
import time

# Allocations before the young are looked through, and rounds of theirs before the middle-aged are; the old are ours.
# What is alive is looked through in one go, at 1 us for each object: 4,000 hold everybody for 4 ms, 10,000 for 10.
YOUNG, ROUNDS, NEVER = 1_000, 4, 1_000_000
# Collections of the middle-aged (a million allocations) before the old are worth a look.
ENOUGH = 250
LOOK_S = 1.0
# Of one core, over ``LOOK_S``.
QUIET_SHARE = 0.15
# What has gone holds memory until it is collected, a page a third of a megabyte.
SOONEST_S, LATEST_S = 30.0, 120.0
# With hundreds of pages one takes a second, with a thousand more, and a class is quiet between any two arrivals: so
# little of the time at most, of which one request in a hundred shall not notice anything.
MOST_SHARE = 0.005


def hold_back_collections() -> None:
    """To be called once all is loaded: what lives now lives for ever, and is never looked through again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, ROUNDS, NEVER)


async def collect_when_quiet() -> None:
    """Collects once there is a reason to, and little else to do; or when it has waited for too long. For ever."""
    collected_at, soonest_s, latest_s = time.monotonic(), SOONEST_S, LATEST_S
    while True:
        began_at, worked_s = time.monotonic(), time.process_time()
        await asyncio.sleep(LOOK_S)
        now = time.monotonic()
        if gc.get_count()[2] < ENOUGH or now - collected_at < soonest_s:
            continue
        is_quiet = time.process_time() - worked_s < QUIET_SHARE * (now - began_at)
        if is_quiet or now - collected_at > latest_s:
            gc.collect()
            collected_at = time.monotonic()
            fair_s = (collected_at - now) / MOST_SHARE
            soonest_s, latest_s = max(SOONEST_S, fair_s), max(LATEST_S, fair_s)
