"""Kubernetes Events (events.k8s.io/v1) about jobs: what a person reads in `kubectl describe`. Losing one harms nothing.

The same event again within ten minutes is counted in the first one's `series`, written at most once a minute; one job
may cause ten different ones at once and one more every thirty seconds. Each namespace has a queue of its own: where a
webhook takes its time over the events of one, those of the others go on.
"""

import asyncio
from collections import OrderedDict, deque
from datetime import datetime
from typing import Any

import structlog

from rfuav_crds.contract import API_VERSION, GROUP
from rfuav_kube import clock, paths
from rfuav_kube.connection import MERGE_PATCH, Answer, Connection, ConnectionProblem, NotSent
from rfuav_operator.core.model import RecordEvent
from rfuav_operator.shell import metrics

log = structlog.get_logger()

CONTROLLER = f"{GROUP}/operator"
WAITING = 2000  # in all queues together
PARALLEL = 16  # requests at a time, one of each namespace
REMEMBERED = 5000
SAME_FOR = 600.0  # seconds
SERIES_EVERY = 60.0  # seconds
BURST, REFILL = 10.0, 1 / 30  # events of one job: at once, and a second
NOTE_LIMIT, WORD_LIMIT = 1024, 128  # bytes, the API's own
RETRY = 0.5  # seconds

Key = tuple[str, str, str, str]


class _Known:
    def __init__(self, now: float) -> None:
        self.name = ""  # set when it was written
        self.count = 1
        self.seen = self.written = now


class Events:
    """Writes the events of each namespace one after the other.

    Args:
        instance: this process, as in the lease.
    """

    def __init__(self, connection: Connection, instance: str) -> None:
        self._connection = connection
        self._instance = instance[:128]
        self._queues: dict[str, deque[tuple[Key, RecordEvent, datetime]]] = {}  # by namespace; none is empty
        self._free = asyncio.Semaphore(PARALLEL)
        self._waiting = asyncio.Event()
        self._known: OrderedDict[Key, _Known] = OrderedDict()
        self._allowed: OrderedDict[str, tuple[float, float]] = OrderedDict()  # job UID: tokens, as of
        self._serial = int(clock.now().timestamp() * 1e9)

    @property
    def waiting(self) -> int:
        """How many are queued."""
        return sum(map(len, self._queues.values()))

    def record(self, action: RecordEvent) -> None:
        """Queue an event; too many are dropped and counted."""
        now = clock.monotonic()
        key = (action.job.uid, action.type, action.reason, action.note)
        known = self._known.get(key)
        if known is not None and now - known.seen < SAME_FOR:
            known.count += 1
            known.seen = now
            if now - known.written < SERIES_EVERY:
                return
            known.written = now
        elif not self._may(action.job.uid, now):
            metrics.events_dropped.inc()
            return
        else:
            self._known[key] = _Known(now)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        self._queues.setdefault(action.job.namespace, deque()).append((key, action, clock.now()))
        if self.waiting > WAITING:
            self._drop_one()
        self._waiting.set()

    def _drop_one(self) -> None:
        """Drop the latest of the namespace with most of them: one that is slow costs no other."""
        key, _, _ = max(self._queues.values(), key=len).pop()
        known = self._known.get(key)
        if known is not None and not known.name:
            del self._known[key]  # never written: the next one starts over
        metrics.events_dropped.inc()

    async def run(self) -> None:
        """Write queued Events until cancelled."""
        writing: set[str] = set()  # namespaces
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._waiting.clear()
                for namespace in [name for name in self._queues if name not in writing]:
                    writing.add(namespace)
                    tasks.create_task(self._write_all(namespace, writing), name=f"events-{namespace}")
                await self._waiting.wait()

    async def _write_all(self, namespace: str, writing: set[str]) -> None:
        """Write the queued Events of one namespace, and remove the queue."""
        queue = self._queues[namespace]
        while queue:
            try:
                await self._write(queue)
            except Exception:  # losing one harms nothing
                log.exception("event not written")
        del self._queues[namespace]
        writing.discard(namespace)

    def _may(self, uid: str, now: float) -> bool:
        tokens, then = self._allowed.pop(uid, (BURST, now))
        tokens = min(BURST, tokens + (now - then) * REFILL)
        self._allowed[uid] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._allowed) > REMEMBERED:
            self._allowed.popitem(last=False)
        return tokens >= 1

    async def _write(self, queue: deque[tuple[Key, RecordEvent, datetime]]) -> None:
        """Write the first of a queue."""
        key, action, at = queue.popleft()
        known = self._known.get(key)
        if known is None:
            return
        try:
            async with self._free:
                answer = await self._send(known, action, at)
        except NotSent:
            queue.appendleft((key, action, at))
            await self._connection.reachable()
            await asyncio.sleep(RETRY)
            return
        except ConnectionProblem as error:
            log.info("event not written", job=_job(action), error=str(error))
            return
        metrics.wrote("EVENT", str(answer.status), 0.0)
        if answer.ok:
            known.name = answer.body["metadata"]["name"]
        else:
            self._known.pop(key, None)  # expired, or its namespace goes: the next one starts over
            log.info("event refused", job=_job(action), status=answer.status, message=answer.message)

    async def _send(self, known: _Known, action: RecordEvent, at: datetime) -> Answer:
        path = paths.events(action.job.namespace)
        if known.name:
            series = {"count": known.count, "lastObservedTime": clock.micro_time(at)}
            return await self._connection.request(
                "PATCH", f"{path}/{known.name}", {"series": series}, content_type=MERGE_PATCH
            )
        self._serial += 1
        return await self._connection.request("POST", path, self._manifest(action, at))

    def _manifest(self, action: RecordEvent, at: datetime) -> dict[str, Any]:
        job = action.job
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{job.name}.{self._serial:x}", "namespace": job.namespace},
            "eventTime": clock.micro_time(at),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "action": action.action,
            "reason": action.reason.encode()[:WORD_LIMIT].decode(errors="ignore"),
            "type": action.type,
            "note": action.note.encode()[:NOTE_LIMIT].decode(errors="ignore"),
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": job.kind.value,
                "namespace": job.namespace,
                "name": job.name,
                "uid": job.uid,
                "resourceVersion": job.resource_version,
            },
        }


def _job(action: RecordEvent) -> str:
    return f"{action.job.namespace}/{action.job.name}"
