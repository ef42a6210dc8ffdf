"""What Prometheus knows of GPUs that jobs held: the operator's counter `rfuav_gpu_seconds_total`, over a window.

The text of a query is made here alone, of numbers and of names that Kubernetes allows for namespaces. What an answer
has beside the namespaces that were asked for is dropped.
"""

import re
from collections import defaultdict
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Literal

import aiohttp
import msgspec

from rfuav_crds.bounds import EARLIEST, LATEST
from rfuav_gateway.settings import is_namespace
from rfuav_gateway.tasks.bodies import TaskType
from rfuav_gateway.tasks.identity import KINDS
from rfuav_gateway.tasks.usage import Counted, Window
from rfuav_kube.objects import printable

SECONDS = 15.0  # for one query
LARGEST = 2 * 1024 * 1024  # bytes of an answer
MOST_SERIES = 20_000
STEPS = 100  # of a window in which is looked whether the operator was there
SHORTEST = 10  # seconds of one step
_SHOWN = 200
_TYPES: dict[str, TaskType] = {kind: of for of, kind in KINDS.items()}
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")


class Unanswered(Exception):  # noqa: N818  an answer, not a fault
    """Prometheus does not answer, or not with what was asked for."""


class _Sample(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, str]


class _Data(msgspec.Struct):
    result: Annotated[list[_Sample], msgspec.Meta(max_length=MOST_SERIES)]
    type: Literal["vector"] = msgspec.field(name="resultType")


class _Answer(msgspec.Struct):
    data: _Data


_decode = msgspec.json.Decoder(_Answer).decode


class Prometheus:
    """Asks one server.

    Args:
        url: of the server, with the path before /api/v1 if there is one.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    async def counted(
        self, by: Literal["namespace", "kind"], window: Window, visible: Collection[tuple[str, TaskType]] | None
    ) -> tuple[Counted, bool]:
        """GPU seconds in a window, and whether nothing is missing.

        Args:
            by: what they are added up by.
            window: when.
            visible: namespaces and types that count; None: all.

        Raises:
            Unanswered: try again later.
        """
        matcher = "" if visible is None else f'{{namespace=~"{_any_of({namespace for namespace, _ in visible})}"}}'
        length = max(1, round((window.end - window.start).total_seconds()))
        step = max(SHORTEST, length // STEPS)
        at = window.end.timestamp()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS)) as session:
            held = await self._query(
                session, f"sum by (namespace, kind) (increase(rfuav_gpu_seconds_total{matcher}[{length}s]))", at
            )
            there = f"(timestamp(max(rfuav_leader)))[{length}s:{step}s]"
            first = await self._query(session, f"min_over_time({there})", at)
            steps = await self._query(session, f"count_over_time({there})", at)
        seconds: defaultdict[str, float] = defaultdict(float)
        for sample in held:
            namespace, kind = sample.metric.get("namespace", ""), _TYPES.get(sample.metric.get("kind", ""))
            if kind is not None and (visible is None or (namespace, kind) in visible):
                seconds[namespace if by == "namespace" else kind] += _number(sample)
        since = None if not first else _instant(_number(first[0]))
        all_steps = int(at // step) - int((at - length) // step)
        complete = bool(steps) and _number(steps[0]) >= all_steps
        return Counted({name: used for name, used in seconds.items() if used > 0}, since), complete

    async def _query(self, session: aiohttp.ClientSession, query: str, at: float) -> list[_Sample]:
        asked = {"query": query, "time": f"{at:.3f}", "timeout": f"{SECONDS:.0f}s", "limit": str(MOST_SERIES)}
        try:
            async with session.post(f"{self._url}/api/v1/query", data=asked, allow_redirects=False) as answer:
                body = await _read(answer)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unanswered(f"{type(error).__name__}: {printable(str(error))[:_SHOWN]}") from error
        if answer.status != HTTPStatus.OK:
            raise Unanswered(f"{answer.status} {printable(body.decode(errors='replace'))[:_SHOWN]}")
        try:
            return _decode(body).data.result
        except msgspec.MsgspecError as error:
            raise Unanswered(f"not an answer of Prometheus: {printable(str(error))[:_SHOWN]}") from error


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > LARGEST:
            raise Unanswered(f"an answer of more than {LARGEST // 1024 // 1024} MiB")
    return bytes(body)


def _any_of(namespaces: Collection[str]) -> str:
    """A regular expression; names of namespaces have no letter that means something in one, or in a string."""
    return "|".join(sorted(name for name in namespaces if is_namespace(name)))


def _number(sample: _Sample) -> float:
    text = sample.value[1]
    return float(text) if _NUMBER.fullmatch(text) else 0.0  # not NaN, nor infinite


def _instant(seconds: float) -> datetime:
    most = (LATEST - EARLIEST).total_seconds()
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=min(seconds, most))
