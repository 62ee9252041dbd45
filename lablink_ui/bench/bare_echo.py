"""The limit of terminals: a websocket of the same framework that sends back what it gets, served as ours is."""

from __future__ import annotations

import asyncio
import contextlib
import sys

import uvicorn
import uvloop
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """It answers."""
    return {"status": "ok"}


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    """Sends back what comes."""
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await websocket.send_bytes(await websocket.receive_bytes())


def main(port: int) -> None:
    """Serves until it is told to stop."""
    # As lablink_ui.main does, for the comparison's sake.
    config = uvicorn.Config(
        app, port=port, log_config=None, access_log=False, ws="websockets-sansio", ws_per_message_deflate=False
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main(int(sys.argv[1]))
