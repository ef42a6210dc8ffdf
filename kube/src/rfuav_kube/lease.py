"""One Lease: taken, renewed, given back, and read within bounds.

In: the connection, and the holder's name. Out: whether it is held now, and the holder.

Other processes count from when they saw the Lease change, so clocks need not agree. Values that others have written are
trusted only within bounds.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import IntEnum
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
import structlog

from rfuav_kube import clock, paths
from rfuav_kube.connection import EARLIEST, LATEST, Answer, Connection
from rfuav_kube.objects import printable, section

log = structlog.get_logger()

SAID_EVERY = timedelta(seconds=30)
LONGEST_NAME = 320  # characters shown of a holder or waiter: a namespace and a name
MOST_TRANSITIONS = 2**31 - 1  # the API server refuses more
_NOT_NOW = (HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)


class Taken(IntEnum):
    """What came of a try; the least of several counts."""

    BY_ANOTHER = 0
    UNKNOWN = 1
    YES = 2


class Lease:
    """One Lease.

    Args:
        me: the name of its holder.
        seconds: after which a Lease that was not renewed is free.
        most_seconds: the longest duration that is trusted, whatever the Lease says.
        note: annotation where a process that waits for a shared Lease leaves its name and the time.
        shared: several processes hold it under the same name; another Lease decides which of them.
    """

    def __init__(
        self,
        connection: Connection,
        namespace: str,
        name: str,
        *,
        me: str,
        seconds: int,
        most_seconds: int,
        note: str,
        shared: bool = False,
    ) -> None:
        self._connection = connection
        self._namespace = namespace
        self._name = name
        self.me = me
        self.refused = ""  # why the API server did not let it be taken
        self._shared = shared
        self._seconds = seconds
        self._most_seconds = most_seconds
        self._note = note
        self._path = f"{paths.leases(namespace)}/{name}"
        self._held = False  # by this process, at some time
        self._seen: tuple[Any, float] = ({}, 0.0)  # its spec, and since when
        self._body: dict[str, Any] = {}

    async def take(self, *, timeout: float) -> Taken:  # noqa: ASYNC109  bounded by the lease
        """Take or renew it."""
        answer = await self.look(timeout=timeout)
        if answer.status == HTTPStatus.NOT_FOUND:
            if not self._free():  # somebody deleted it; its holder does not know yet
                return Taken.BY_ANOTHER
            answer = await self._connection.request("POST", paths.leases(self._namespace), self._new(), timeout=timeout)
        elif answer.status == HTTPStatus.OK:
            if not self._free():
                await self._say_that_it_waits(timeout)
                return Taken.BY_ANOTHER
            answer = await self._connection.request("PUT", self._path, self._mine(), timeout=timeout)
        if answer.ok:
            self._held, self._body, self.refused = True, answer.body, ""
            return Taken.YES
        if answer.status in _NOT_NOW or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.debug("lease not renewed", lease=self._path, status=answer.status, message=answer.message)
        else:
            words = f"the Lease {self._namespace}/{self._name} is refused: {answer.status} {answer.message}"
            if words != self.refused:
                log.warning(words)
            self.refused = words
        return Taken.UNKNOWN

    async def look(self, *, timeout: float) -> Answer:  # noqa: ASYNC109  bounded by the lease
        """Read it, and note since when it is as it is."""
        answer = await self._connection.request("GET", self._path, timeout=timeout)
        if answer.ok:
            self._body = answer.body
        spec = self._spec if answer.ok else None
        if (answer.ok or answer.status == HTTPStatus.NOT_FOUND) and spec != self._seen[0]:
            self._seen = (spec, clock.monotonic())
        return answer

    async def give_back(self) -> None:
        """Let another take it at once, if it is held."""
        answer = await self._connection.request("GET", self._path, timeout=2)
        if answer.ok and _holder(answer.body) == self.me:
            body = answer.body
            body["spec"].update(holderIdentity="", renewTime=clock.micro_time(clock.now()))
            await self._connection.request("PUT", self._path, body, timeout=2)

    def held_by_another(self) -> str:
        """The holder when it was last read; empty: this process, or none."""
        return "" if not self._body or self._free() else _shown(_holder(self._body))

    def stands_by(self) -> str:
        """The process that recently announced that it waits for this Lease."""
        who, age = self._said()
        return _shown(who) if who != self.me and age < 3 * SAID_EVERY else ""

    async def _say_that_it_waits(self, timeout: float) -> None:  # noqa: ASYNC109  bounded by the lease
        """Announce to the holder that this process waits, for the pools' status; a third process does not."""
        who, age = self._said()
        if not self._shared or age < (SAID_EVERY if who == self.me else 3 * SAID_EVERY):
            return
        meta = section(self._body, "metadata")
        notes = {**section(meta, "annotations"), self._note: f"{self.me} {clock.micro_time(clock.now())}"}
        body = {**self._body, "metadata": {**meta, "annotations": notes}}
        await self._connection.request("PUT", self._path, body, timeout=timeout)

    def _said(self) -> tuple[str, timedelta]:
        """The process that announced that it waits, and how long ago."""
        note = str(section(section(self._body, "metadata"), "annotations").get(self._note, ""))
        who, _, at = note.partition(" ")
        said = _instant(at)
        age = timedelta.max if said is None else clock.now() - said
        # Nobody has said it in the future: it would hold until then.
        return (who, age) if -SAID_EVERY < age < timedelta.max else ("", timedelta.max)

    @property
    def _spec(self) -> Mapping[str, Any]:
        return section(self._body, "spec")

    def _free(self) -> bool:
        holder = _holder(self._body)
        mine = holder == self.me
        if holder == "" or (mine and (self._held or self._shared)):
            return True
        said = _whole(self._spec.get("leaseDurationSeconds"), 0, self._most_seconds)
        seconds = max(said, self._seconds)
        # What a former process of this pod has sent may still be carried out until its lease ends, by the same clock.
        renewed = _instant(self._spec.get("renewTime"))
        if mine and renewed is not None and clock.now() > renewed + timedelta(seconds=seconds):
            return True
        return clock.monotonic() - self._seen[1] > seconds

    def _new(self) -> dict[str, Any]:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": self._fresh(0),
        }

    def _mine(self) -> dict[str, Any]:
        spec = self._spec
        if spec.get("holderIdentity") == self.me and self._held:
            return {**self._body, "spec": {**spec, "renewTime": clock.micro_time(clock.now())}}
        transitions = _whole(spec.get("leaseTransitions"), 0, MOST_TRANSITIONS - 1)
        return {**self._body, "spec": {**spec, **self._fresh(transitions + 1)}}

    def _fresh(self, transitions: int) -> dict[str, Any]:
        now = clock.micro_time(clock.now())
        return {
            "holderIdentity": self.me,
            "leaseDurationSeconds": self._seconds,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }


def _holder(body: Mapping[str, Any]) -> str:
    return str(section(body, "spec").get("holderIdentity") or "")


def _shown(name: str) -> str:
    return printable(name[:LONGEST_NAME])


def _whole(written: Any, least: int, most: int) -> int:
    """A whole number between the two, or 0 for what is none."""
    return min(max(written, least), most) if type(written) is int else 0


def _instant(written: Any) -> datetime | None:
    try:
        found: datetime = msgspec.convert(written, Annotated[datetime, msgspec.Meta(tz=True)])
    except msgspec.ValidationError:
        return None
    return min(max(found, EARLIEST), LATEST)  # seconds can be added between
