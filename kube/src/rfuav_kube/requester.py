"""Requests that change something: bounded in number, none beyond the lease, with unknown outcomes marked as such.

A failed transmission is also returned as an answer, with a status that no server uses.
"""

import asyncio
import contextlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from weakref import WeakValueDictionary

import structlog

from rfuav_kube import backoff, clock
from rfuav_kube.connection import Answer, Connection, NotSent, Unknown, Unsendable

log = structlog.get_logger()

FIRST_BACKOFF, LAST_BACKOFF = 0.1, 5.0  # seconds
UNREACHED_BACKOFF = 1.0  # seconds at most while there is no connection: trying costs nobody anything
# In the place of an answer: the API server was away; it was there, and none came; the request did not get to it.
CUT_OFF, UNKNOWN, NOT_SENT = 597, 598, 599
_OUTCOMES = {UNKNOWN: "unknown", NOT_SENT: "not sent"}


class LeaseOver(RuntimeError):  # noqa: N818  the term of leader election
    """The lease has ended; nothing may be written."""


class Requester:
    """Sends requests.

    Args:
        parallel: how many at a time.
        timeout_seconds: of one.
        lease_left: seconds for which this process may write.
        sent: called with the method, what came of it, and the seconds that it took.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        parallel: int,
        timeout_seconds: float,
        lease_left: Callable[[], float],
        sent: Callable[[str, str, float], None],
    ) -> None:
        self._connection = connection
        self._parallel = parallel
        self._timeout = timeout_seconds
        self._lease_left = lease_left
        self._sent = sent
        self._free = asyncio.Semaphore(parallel)
        self._creating = asyncio.Semaphore(max(1, parallel * 9 // 10))
        self._slots: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # by method and namespace
        self.abandoned = False  # a request was given up while it was under way: it may still be carried out

    async def insist(self, method: str, path: str, body: Any = None) -> Answer:
        """A request that may be sent twice, until there is an answer."""
        tries = 0
        while True:
            answer = await self.send(method, path, body)
            if answer is not None:
                return answer
            tries += 1
            await asyncio.sleep(pause(tries))

    async def send(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json"
    ) -> Answer | None:
        """A request, tried again while the server surely did not act on it; None: the outcome is not known."""
        tries = 0
        while True:
            answer = await self.attempt(method, path, body, content_type=content_type)
            if decides(answer):
                return answer
            if answer.status not in (NOT_SENT, HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS):
                return None
            tries += 1
            wait = pause(tries, UNREACHED_BACKOFF if answer.status == NOT_SENT else LAST_BACKOFF)
            await asyncio.sleep(wait if answer.retry_after is None else answer.retry_after)

    async def attempt(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json"
    ) -> Answer:
        """One request.

        Raises:
            LeaseOver: the lease has ended.
        """
        async with contextlib.AsyncExitStack() as slots:
            for slot in self._slots_of(method, path):
                await slots.enter_async_context(slot)
            left = self._lease_left()
            if left <= 0:
                raise LeaseOver("the lease has ended; nothing may be written")
            began = clock.monotonic()
            timeout = min(self._timeout, left)
            try:
                answer = await self._connection.request(method, path, body, content_type=content_type, timeout=timeout)
            except Unknown as error:
                answer = Answer(UNKNOWN, {"message": str(error)})
            except asyncio.CancelledError:
                self.abandoned = True
                raise
            except Unsendable as error:
                log.exception("cannot be sent", method=method, path=path)
                said = {"reason": "Invalid", "message": f"it cannot be sent: {error}"}
                answer = Answer(HTTPStatus.UNPROCESSABLE_ENTITY, said)
            except NotSent as error:
                answer = Answer(NOT_SENT, {"message": str(error)})
            took = clock.monotonic() - began
            self._sent(method, _OUTCOMES.get(answer.status, str(answer.status)), took)
        if answer.status == UNKNOWN and took >= timeout:
            await self._let_it_end(took)
        if answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return answer
        if await self._connection.reachable():
            return answer if answer.status == NOT_SENT else Answer(CUT_OFF, answer.body)
        log.warning("request failed", method=method, path=path, status=answer.status, message=answer.message)
        return answer

    async def _let_it_end(self, took: float) -> None:
        """Wait until a request that the lease cut short is over; the lease was renewed since.

        Until its full time-out it may still be carried out: whoever looked before would not see what it does.
        """
        await asyncio.sleep(max(self._timeout - took, 0.0))

    def _slots_of(self, method: str, path: str) -> list[asyncio.Semaphore]:
        """What a request waits for.

        Whatever admits pods may take its time over each create and delete: those of one namespace leave room for the
        others', and all creates for statuses and deletes.
        """
        if method not in ("POST", "DELETE"):
            return [self._free]
        namespace = path.partition("/namespaces/")[2].partition("/")[0]
        share = 7 if method == "POST" else 2
        mine = self._slots.setdefault(f"{method} {namespace}", asyncio.Semaphore(max(1, self._parallel * share // 10)))
        return [mine, self._creating, self._free] if method == "POST" else [mine, self._free]


def decides(answer: Answer) -> bool:
    """Whether the API server has said yes or no, as far as the object goes."""
    return answer.status < HTTPStatus.INTERNAL_SERVER_ERROR and answer.status not in (
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
    )


def pause(tries: int, most: float = LAST_BACKOFF) -> float:
    """Seconds before the next try, after so many."""
    return backoff.jittered(backoff.grown(tries, first=FIRST_BACKOFF, most=most))
