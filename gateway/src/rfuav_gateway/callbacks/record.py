"""What has been settled, in a ConfigMap of the gateway's own namespace: no task is called back again after a restart.

Every task that ended before `before` is settled: its receiver took the message, or it was given up. Of those that ended
later, the settled ones are listed by UID. `before` follows the oldest that is not settled, so the list stays short.
"""

from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any

import msgspec

from rfuav_kube import clock, paths
from rfuav_kube.connection import Connection
from rfuav_kube.objects import section

LATE = timedelta(minutes=5)  # in which the end of a task comes to be known here
MOST = 15_000  # UIDs: a ConfigMap takes a mebibyte
TIMEOUT = 5.0
_KEY = "settled"


class NotMineError(Exception):
    """Another replica has written the record, or it cannot be read or written as it should."""


_Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class _Settled(msgspec.Struct):
    before: _Instant
    uids: dict[str, _Instant]  # and when their tasks ended


class Record:
    """The record; for one replica at a time.

    Args:
        connection: its credentials must allow get, create and update of this ConfigMap.
        namespace: of the gateway.
        name: of the ConfigMap.
    """

    def __init__(self, connection: Connection, namespace: str, name: str) -> None:
        self._connection = connection
        self._all = f"/api/v1/namespaces/{paths.named(namespace)}/configmaps"
        self._name = name
        self._body: dict[str, Any] = {}
        self._settled = _Settled(clock.now(), {})
        self._changed = False

    def has(self, uid: str, ended: datetime) -> bool:
        """Whether a task is settled."""
        return ended < self._settled.before or uid in self._settled.uids

    def settle(self, uid: str, ended: datetime) -> None:
        """A task is settled."""
        self._settled.uids[uid] = ended
        self._changed = True

    async def load(self) -> None:
        """Read it; the first time, everything that has ended until now is settled.

        What this process has settled and could not write down stays settled.

        Raises:
            NotMineError: it cannot be read.
            ConnectionProblem: the API server cannot be asked now.
        """
        answer = await self._connection.request("GET", f"{self._all}/{self._name}", timeout=TIMEOUT)
        if answer.status == HTTPStatus.NOT_FOUND:
            self._settled, self._changed, self._body = _Settled(clock.now(), {}), True, {}
            return
        if not answer.ok:
            raise NotMineError(f"ConfigMap {self._name}: {answer.status} {answer.message}")
        self._body = answer.body
        try:
            text = str(section(answer.body, "data").get(_KEY, ""))
            read = msgspec.json.decode(text, type=_Settled)
        except msgspec.MsgspecError as error:
            raise NotMineError(f"ConfigMap {self._name} cannot be read, delete it: {error}") from error
        own = {uid: ended for uid, ended in self._settled.uids.items() if ended >= read.before}
        self._changed = not own.keys() <= read.uids.keys()
        self._settled = _Settled(read.before, own | read.uids)

    async def save(self, oldest: datetime | None) -> None:
        """Write it if it has changed.

        Args:
            oldest: end of the oldest task that is not settled.

        Raises:
            NotMineError: another has written it.
            ConnectionProblem: the API server cannot be asked now.
        """
        if not self._changed:
            return
        before = max(self._settled.before, min(oldest or clock.now(), clock.now() - LATE))
        left = {uid: ended for uid, ended in self._settled.uids.items() if ended >= before}
        if len(left) > MOST:
            left = dict(sorted(left.items(), key=lambda one: one[1])[-MOST:])
        body = {
            **self._body,
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {**section(self._body, "metadata"), "name": self._name},
            "data": {_KEY: msgspec.json.encode(_Settled(before, left)).decode()},
        }
        dropped = self._settled.uids.keys() - left.keys()
        self._changed = False
        method, path = ("PUT", f"{self._all}/{self._name}") if self._body else ("POST", self._all)
        try:
            answer = await self._connection.request(method, path, body, timeout=TIMEOUT)
        except BaseException:
            self._changed = True
            raise
        if not answer.ok:
            self._changed = True
            raise NotMineError(f"ConfigMap {self._name}: {answer.status} {answer.message}")
        self._body = answer.body
        self._settled.before = before
        for uid in dropped:
            del self._settled.uids[uid]
