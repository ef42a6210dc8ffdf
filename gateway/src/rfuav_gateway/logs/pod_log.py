"""The log of one pod, as the API server gives it: lines with their places, bounded in length.

GET /api/v1/namespaces/NAMESPACE/pods/POD/log. The answer is text, one line after another, each after its timestamp
(`timestamps=true`). With `follow=true` it ends when the container ends, but also when the kubelet, the API server or a
proxy ends the connection, and nothing in the answer tells the two apart. A container that has not started is answered
with 400, a missing pod with 404. `sinceTime` counts whole seconds. The kubelet has the newest file of a log that it has
rotated (10 MiB by default).
"""

from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import NamedTuple

import aiohttp

from rfuav_crds import contract
from rfuav_gateway.logs.places import Place, nanoseconds, since_time
from rfuav_kube import paths
from rfuav_kube.connection import Connection, retry_after
from rfuav_kube.objects import printable
from rfuav_kube.reflector import Refused

LONGEST_LINE = 64 * 1024
"""Bytes that are kept of a line."""
SILENCE = 600.0
"""Seconds without a byte, after which a connection counts as lost."""
_SHOWN = 300  # characters of an error


class NotStarted(Exception):  # noqa: N818  a state, not a fault
    """The container has not started."""


class Absent(Exception):  # noqa: N818  a state, not a fault
    """The pod does not exist, or its node no longer has the log."""


PROBLEMS = (Refused, aiohttp.ClientError, TimeoutError, OSError)
"""What may happen between here and the kubelet."""


class Line(NamedTuple):
    """One line.

    Args:
        place: where it is; None: the kubelet wrote it in place of the log, as in "unable to retrieve container logs".
        text: its bytes without timestamp and end of line, at most `LONGEST_LINE`.
        left_out: how many more bytes it has.
    """

    place: Place | None
    text: bytes
    left_out: int = 0


async def lines(
    connection: Connection,
    namespace: str,
    pod: str,
    *,
    follow: bool = False,
    since: int | None = None,
    tail: int | None = None,
    complete: bool = True,
) -> AsyncGenerator[Line, None]:
    """The lines of a pod's container, oldest first.

    Args:
        connection: the way to the API server.
        namespace: of the pod.
        pod: its name.
        follow: go on with new lines as they come.
        since: nanoseconds since 1970; lines of the second in which it is come too.
        tail: only so many lines, the last ones.
        complete: whether the container has ended, so that text without an end of line at the end is a line as well.

    Raises:
        NotStarted, Absent, Refused: instead of the first line.
        aiohttp.ClientError, TimeoutError, OSError: the connection was lost.
    """
    params = {"container": contract.CONTAINER, "timestamps": "true"}
    params |= {"follow": "true"} if follow else {}
    params |= {"sinceTime": since_time(since)} if since is not None else {}
    params |= {"tailLines": str(tail)} if tail is not None else {}
    path = f"{paths.pods(namespace)}/{pod}/log"
    async with connection.stream(path, params, idle=SILENCE) as response:
        if response.status != HTTPStatus.OK:
            raise await _refusal(response)
        last = Place(pod, -1, 0)
        async for line, left_out in _split(response.content, complete=complete):
            stamp, _, text = line.partition(b" ")
            at = nanoseconds(stamp.decode("ascii", errors="replace")) if len(stamp) < _LONGEST_STAMP else None
            if at is None:
                yield Line(None, line, left_out)
                continue
            last = Place(pod, at, last.nth + 1 if at == last.nanoseconds else 0)
            yield Line(last, text, left_out)


_LONGEST_STAMP = 40


async def _refusal(response: aiohttp.ClientResponse) -> Exception:
    status = response.status
    body = await response.content.read(_SHOWN * 4)
    if status == HTTPStatus.BAD_REQUEST:
        return NotStarted()
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
        return Absent()
    return Refused(f"{status} {printable(body.decode(errors='replace'))[:_SHOWN]}", retry_after(response))


async def _split(stream: aiohttp.StreamReader, *, complete: bool) -> AsyncGenerator[tuple[bytes, int], None]:
    """Lines without their ends, and how many bytes of each were left out."""
    kept, left_out = bytearray(), 0
    async for chunk in stream.iter_any():
        start = 0
        while start < len(chunk):
            end = chunk.find(b"\n", start)
            stop = len(chunk) if end < 0 else end
            room = min(stop - start, LONGEST_LINE - len(kept))
            kept += chunk[start : start + room]
            left_out += stop - start - room
            start = stop + 1
            if end >= 0:
                yield bytes(kept), left_out
                kept, left_out = bytearray(), 0
    if kept and complete:
        yield bytes(kept), left_out
