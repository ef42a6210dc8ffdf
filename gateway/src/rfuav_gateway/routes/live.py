"""What happens in the cluster, as far as the caller may see it: one stream for each open page."""

from contextlib import AsyncExitStack
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from rfuav_gateway.access.callers import Unavailable
from rfuav_gateway.live.live import CONTENT_TYPE, TooManyStreams
from rfuav_gateway.live.pace import Pace
from rfuav_gateway.routes.parts import Asked, AsksAnywhere
from rfuav_gateway.routes.streams import Stream
from rfuav_gateway.routes.tasks import compressed
from rfuav_gateway.serving.problems import Refused
from rfuav_gateway.settings import is_namespace
from rfuav_gateway.tasks.page_bodies import Picture
from rfuav_gateway.tasks.sight import Sight

router = APIRouter()

ANSWERS: dict[int | str, dict[str, Any]] = {
    HTTPStatus.OK.value: {
        "content": {CONTENT_TYPE: {}},
        "description": "What there is now, or events start, jobs, pools, quotas, scope and bye, each with JSON.",
    }
}


@router.get("/api/v2/live", response_model=Picture, responses=ANSWERS)
async def live(
    request: Request,
    asks: AsksAnywhere,
    namespace: Annotated[
        str, Query(max_length=63, description="Only this namespace; empty: all that one may see.")
    ] = "",
    accept: Annotated[str, Header(max_length=512, description="application/json: what there is now, no stream.")] = "",
    accept_encoding: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Jobs, pools and quotas as they change, as far as one may see them."""
    if namespace and not is_namespace(namespace):
        raise Refused(HTTPStatus.BAD_REQUEST, "namespace: write the name of a namespace, as in team-a")
    only = namespace or request.scope["state"].get("namespace", "")
    if "application/json" in accept and CONTENT_TYPE not in accept:
        return compressed(await asks.parts.live.picture(await sight(asks, only)), accept_encoding)
    packed = "gzip" in accept_encoding
    try:
        async with AsyncExitStack() as stack:
            stack.enter_context(asks.parts.rates.stream(asks.caller.name))
            events = await stack.enter_async_context(asks.parts.live.follow(_Look(asks, only), packed=packed))
            headers = {"Content-Encoding": "gzip"} if packed else {}
            return Stream(events, stack.pop_all(), headers=headers, patience=Pace().patience)
    except TooManyStreams as error:
        words = "too many of these streams are open: try again"
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, words, {"Retry-After": "5"}) from error


class _Look:
    """Finds out what the caller sees now."""

    def __init__(self, asks: Asked, only: str) -> None:
        self._asks, self._only = asks, only
        self._last: Sight | None = None

    async def __call__(self) -> Sight | None:
        asks = self._asks
        try:
            self._last = await sight(asks, self._only) if await asks.parts.callers.still(asks.caller) else None
        except Unavailable:
            if self._last is None:
                raise
        return self._last  # the API server is away: what was allowed a minute ago stays so until it answers


async def sight(asks: Asked, only: str = "") -> Sight:
    """What the caller sees."""
    return await asks.parts.sights.of(asks.caller, known(asks), only=only)


def known(asks: Asked) -> list[str]:
    """The namespaces that matter: the caller's own first, then those with jobs or quotas."""
    parts = asks.parts
    own = (name for name in (asks.namespace, asks.caller.namespace) if name)
    return list(dict.fromkeys((*own, *parts.tasks.namespaces(), *sorted(parts.whole.quota_namespaces()))))
