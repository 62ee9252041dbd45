"""Routes that every machine calls all day: described as all others are, answered without the framework's solver.

Half of a heartbeat's time went into finding out, anew for each request, what the function needs. Here that is known.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, get_type_hints

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from backend.api.auth import get_address, get_agent, get_house, read_bearer
from backend.api.messages import Message

Body = TypeVar("Body", bound=Message)


class AgentReport(APIRoute):
    """The route of a function ``(body, agent, house)`` that takes an agent's report and has nothing to answer.

    The function's signature is what the description says; its parameters are looked up here. Refusals are the same.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        record = self.endpoint
        message: type[Message] = get_type_hints(record)["body"]

        async def handle(request: Request) -> Response:
            house = get_house(request)
            token = read_bearer(request)
            agent = house.agent_tokens.recall(token) or await get_agent(house, token, get_address(request))
            await record(body=await read_body(request, message), agent=agent, house=house)
            return Response(b"{}", media_type="application/json")

        return handle


async def read_body(request: Request, message: type[Body]) -> Body:
    """The body of a request, which must be JSON.

    Raises:
        RequestValidationError: it is none, or not this message; says which field.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise RequestValidationError([{"type": "json_invalid", "loc": ("body",), "msg": "not JSON"}])
    try:
        return message.model_validate_json(await request.body())
    except ValidationError as exc:
        raise RequestValidationError(exc.errors(include_url=False)) from None
