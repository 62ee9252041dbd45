"""The routes of terminals: open, list and close those of a seat, and the connections of agents, owners and watchers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, WebSocket

from backend.api.agents import BIGGEST_ID
from backend.api.answers import refusals
from backend.api.auth import MAX_TOKEN, Address, TheHouse, is_secure
from backend.api.cookies import is_same_origin, session_cookie
from backend.api.errors import error_response
from backend.api.seat_auth import Seat
from backend.errors import Forbidden, Gone, InvalidInput, LabLinkError, NotFound, Unauthenticated
from backend.house import House
from backend.live.terminal_lines import Viewer
from backend.services.actor import Actor
from backend.services.sign_in import AdminIdentity, find_session
from backend.services.terminals import (
    Standing,
    TerminalView,
    check_agent,
    end_terminal,
    list_standing,
    list_terminals,
    request_terminal,
)
from backend.states import Role

router = APIRouter(prefix="/api", tags=["terminal"], responses=refusals(401, 403, 404, 409, 422, 429))
TerminalId = Annotated[int, Path(ge=1, le=BIGGEST_ID)]
_NOT_HERE = "This terminal is not open in this browser."


@router.post("/seat/terminals", status_code=201)
async def open_terminal(seat: Seat, house: TheHouse, address: Address) -> dict[str, Any]:
    """Opens a terminal; connect to it by websocket at `/api/seat/terminals/{id}`."""
    actor = Actor.researcher(seat.email, address)
    return _plain(await request_terminal(house.db, seat.id, actor=actor))


@router.get("/seat/terminals")
async def list_open(seat: Seat, house: TheHouse) -> dict[str, Any]:
    """The open terminals of the seat."""
    return {"terminals": [_plain(terminal) for terminal in await list_terminals(house.db, seat.id)]}


@router.delete("/seat/terminals/{terminal_id}")
async def close_terminal(terminal_id: TerminalId, seat: Seat, house: TheHouse, address: Address) -> dict[str, Any]:
    """Closes a terminal: its shell ends."""
    await end_terminal(house.db, seat.id, terminal_id, actor=Actor.researcher(seat.email, address))
    return {}


@router.websocket("/agent/terminals/{terminal_id}")
async def connect_agent(websocket: WebSocket, terminal_id: str) -> None:
    """An agent brings its end of a terminal."""
    house = _house(websocket)
    try:
        number, token = _number(terminal_id), _bearer(websocket)
        agent = await house.agent_tokens.authenticate(token)
        await check_agent(house.db, number, agent.vm_id)
    except LabLinkError as exc:
        await _deny(websocket, exc)
        return
    await websocket.accept()
    await house.terminals.serve_machine(number, agent, token, websocket)


@router.websocket("/seat/terminals/{terminal_id}")
async def connect_owner(websocket: WebSocket, terminal_id: str) -> None:
    """The seat's own browser looks into a terminal and types; `?from=` is how many bytes it has seen."""
    house, owner_hash = _house(websocket), websocket.state.owner_hash

    async def is_allowed(standing: Standing) -> bool:
        return owner_hash in standing.owners

    try:
        _check_origin(websocket)
        number, cursor = _number(terminal_id), _cursor(websocket)
        standing = await _get_standing(house, number, may_look=is_allowed)
    except LabLinkError as exc:
        await _deny(websocket, exc)
        return
    await websocket.accept()
    viewer = Viewer(websocket, cursor, is_allowed, may_type=lambda _: True)
    await house.terminals.serve_viewer(number, standing.claim_id, viewer)


@router.websocket("/admin/terminals/{terminal_id}")
async def connect_watcher(websocket: WebSocket, terminal_id: str) -> None:
    """An admin looks into a terminal whose owner has agreed, and types if the owner agreed to that."""
    house, secret = _house(websocket), websocket.cookies.get(session_cookie(secure=is_secure(_house(websocket))), "")

    async def is_allowed(standing: Standing) -> bool:
        admin = await _find_helper(house, secret)
        return admin is not None and admin.name in standing.watchers

    try:
        _check_origin(websocket)
        number, cursor = _number(terminal_id), _cursor(websocket)
        admin = await _find_helper(house, secret)
        if admin is None:
            raise Unauthenticated("This needs the session of an operator or admin.")
        standing = await _get_standing(house, number, may_look=is_allowed)
    except LabLinkError as exc:
        await _deny(websocket, exc)
        return

    def may_type(now: Standing) -> bool:
        return now.watchers.get(admin.name, False)

    await websocket.accept()
    viewer = Viewer(websocket, cursor, is_allowed, may_type, is_owner=False, can_type=may_type(standing))
    await house.terminals.serve_viewer(number, standing.claim_id, viewer)


async def _get_standing(house: House, terminal_id: int, *, may_look: Any) -> Standing:
    """Says the same of a terminal that does not exist and of one that is somebody else's."""
    standing = (await list_standing(house.db, [terminal_id])).get(terminal_id)
    if standing is None or not await may_look(standing):
        raise Forbidden(_NOT_HERE, code="not_yours")
    if standing.over:
        raise Gone(f"This terminal is over: {standing.over}.")
    return standing


async def _find_helper(house: House, secret: str) -> AdminIdentity | None:
    admin = await find_session(house.db, secret) if secret else None
    return admin if admin is not None and admin.role in {Role.OPERATOR, Role.ADMIN} else None


def _house(websocket: WebSocket) -> House:
    house: House = websocket.app.state.house
    return house


def _bearer(websocket: WebSocket) -> str:
    scheme, _, token = websocket.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN or not token.isascii():
        raise Unauthenticated("This needs a token: Authorization: Bearer …")
    return token


def _check_origin(websocket: WebSocket) -> None:
    if not is_same_origin(websocket):
        raise Forbidden("A terminal opens in pages of this server only (Origin).", code="wrong_origin")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:20]) <= BIGGEST_ID:
        raise NotFound(_NOT_HERE, code="unknown_terminal")
    return int(text[:20])


def _cursor(websocket: WebSocket) -> int:
    text = websocket.query_params.get("from", "0")
    if not text.isascii() or not text.isdigit() or len(text) > 16:
        raise InvalidInput("from must be a number of bytes.")
    return int(text)


async def _deny(websocket: WebSocket, exc: LabLinkError) -> None:
    """Answers the handshake as any other request."""
    await websocket.send_denial_response(error_response(exc.status, exc.error_code, exc.message))


def _plain(terminal: TerminalView) -> dict[str, Any]:
    values = asdict(terminal)
    return {**values, "opened_at": terminal.opened_at.isoformat(), "ended_at": None, "reason": terminal.reason}
