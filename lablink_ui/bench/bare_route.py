"""The limit of heartbeats: one JSON route of the same framework that does nothing, served as our server serves."""

from __future__ import annotations

import asyncio
import sys

import uvicorn
import uvloop
from fastapi import FastAPI
from pydantic import BaseModel


class Beat(BaseModel):
    """The fields of a heartbeat, without a rule on any of them."""

    boot_id: str
    phase: str
    health: str
    reasons: list[str]
    gpus: list[dict[str, float]]
    cpu_pct: float
    memory_pct: float
    disk_free_pct: float


app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """It answers."""
    return {"status": "ok"}


@app.post("/api/heartbeat")
async def heartbeat(body: Beat) -> dict[str, str]:
    """Takes a body and forgets it."""
    return {}


def main(port: int) -> None:
    """Serves until it is told to stop."""
    # As lablink_ui.main does, for the comparison's sake.
    config = uvicorn.Config(app, port=port, log_config=None, access_log=False, ws="websockets-sansio")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main(int(sys.argv[1]))
