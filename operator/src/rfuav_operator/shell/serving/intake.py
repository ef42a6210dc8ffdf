"""The progress server: pods report over TLS, authenticated `Report`s go to the loop, the latest of each pod.

The protocol is Kubeflow's KEP-2779 with our group and plural in the path. A report is believed when its token is bound
to a live pod that holds room for that job's current attempt; what time it is, the operator says.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import NamedTuple

import orjson
import structlog
from aiohttp import web

from rfuav_kube import clock
from rfuav_kube.connection import ConnectionProblem
from rfuav_operator.core.job.progress import Parts, parse_trainer_status
from rfuav_operator.core.model import Job, Pod, Report, Uid
from rfuav_operator.shell import kinds, metrics
from rfuav_operator.shell.reading.state import ClusterState
from rfuav_operator.shell.serving.tokens import Tokens, Unauthorized

log = structlog.get_logger()

LARGEST = 64 * 1024  # bytes of a body
BURST = 5.0  # reports of one pod at once
REMEMBERED = 20_000  # pods
REASONS = {
    HTTPStatus.BAD_REQUEST: "BadRequest",
    HTTPStatus.UNAUTHORIZED: "Unauthorized",
    HTTPStatus.FORBIDDEN: "Forbidden",
    HTTPStatus.NOT_FOUND: "NotFound",
    HTTPStatus.CONFLICT: "Conflict",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "RequestEntityTooLarge",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Invalid",
    HTTPStatus.TOO_MANY_REQUESTS: "TooManyRequests",
    HTTPStatus.INTERNAL_SERVER_ERROR: "InternalError",
    HTTPStatus.SERVICE_UNAVAILABLE: "ServiceUnavailable",
}
WAIT = {HTTPStatus.TOO_MANY_REQUESTS: "1", HTTPStatus.SERVICE_UNAVAILABLE: "2"}  # Retry-After, seconds


class Refused(Exception):  # noqa: N818  an answer, not a fault
    """A report that is not taken.

    Args:
        code: the HTTP status.
        message: why, and what would be taken.
    """

    def __init__(self, code: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Pace(NamedTuple):
    tokens: float
    at: float
    sequence: int
    told: bool = False  # that its results are not taken


class Intake:
    """Takes reports and keeps the newest of each pod until the loop asks for them.

    Args:
        leading: only the leader takes reports.
        on_report: called when one is waiting.
        per_second: reports of one pod a second.
    """

    def __init__(
        self,
        state: ClusterState,
        tokens: Tokens,
        *,
        leading: Callable[[], bool],
        on_report: Callable[[], None],
        per_second: float,
    ) -> None:
        self._state = state
        self._tokens = tokens
        self._leading = leading
        self._on_report = on_report
        self._per_second = per_second
        self._kept: dict[Uid, dict[str, Report]] = {}  # job -> pod name -> its newest report
        self._fresh: set[Uid] = set()  # jobs with a report that was not handed out yet
        self._pace: OrderedDict[Uid, _Pace] = OrderedDict()

    def take(self, jobs: Iterable[Uid] = ()) -> list[Report]:
        """The newest report of each pod, for jobs with new reports and for `jobs`.

        A report is kept until a status with its values was read back: the write may have failed, although its sender
        got a positive answer.
        """
        taken: list[Report] = []
        for uid in self._fresh.union(jobs):
            left = {pod: report for pod, report in self._kept.get(uid, {}).items() if self._is_owed(report)}
            taken += left.values()
            if left:
                self._kept[uid] = left
            else:
                self._kept.pop(uid, None)
        self._fresh.clear()
        return taken

    def _is_owed(self, report: Report) -> bool:
        job = self._state.read_job(report.job_uid)
        if job is None or (job.status.phase and job.status.phase.terminal):
            return False
        held = next((held for held in job.status.assignments if held.pod == report.pod), None)
        if held is None:
            return False
        if held.rank:  # of its report nothing but the GPU is kept
            return report.gpu_uuid not in ("", held.gpu_uuid)
        return _sequence(job, report.index) < report.sequence

    def app(self) -> web.Application:
        """The server's one route."""
        app = web.Application(client_max_size=LARGEST)
        path = f"{kinds.OURS}/namespaces/{{namespace}}/{{plural}}/{{name}}/status"
        app.router.add_post(path, self._post)
        return app

    async def _post(self, request: web.Request) -> web.Response:
        try:
            body = await self._take(request)
        except Refused as refused:
            return _answer(refused.code, str(refused))
        except Exception:  # whatever is in it, it is this report's alone
            log.exception("report could not be processed", path=request.path)
            return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, "the operator failed on this report")
        metrics.reports.labels(str(HTTPStatus.OK)).inc()
        return web.Response(body=body, content_type="application/json")

    async def _take(self, request: web.Request) -> bytes:
        """Take the report; the answer is the document as it was sent."""
        if not self._leading():
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "this replica is not the leader; send the report again")
        pod, job = await self._sender(request)
        pace = self._may(pod)
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a report may have at most {LARGEST} bytes") from error
        try:
            parts = parse_trainer_status(orjson.loads(body))
        except (ValueError, RecursionError) as error:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        # Looked up again: another report of the pod may have come while this body was read.
        pace = self._pace.get(pod.uid, pace)
        newest = max(pace.sequence, _sequence(self._state.job(job.uid) or job, pod.index))
        if parts.sequence is not None and parts.sequence <= newest:
            raise Refused(HTTPStatus.CONFLICT, f"sequence {parts.sequence} is not newer than {newest}")
        sequence = newest + 1 if parts.sequence is None else parts.sequence
        self._pace[pod.uid] = pace._replace(sequence=sequence)
        self._fresh.add(job.uid)
        self._kept.setdefault(job.uid, {})[pod.name] = Report(
            job_uid=job.uid,
            pod=pod.name,
            attempt=pod.attempt,
            index=pod.index,
            sequence=sequence,
            progress=parts.progress,
            metrics=parts.metrics,
            custom_metrics=parts.custom_metrics,
            checkpoint=parts.checkpoint,
            outputs=parts.outputs,
            gpu_uuid=parts.gpu_uuid,
            final=parts.final,
            received_at=clock.now(),
        )
        self._hold_results(job.uid, pod, parts)
        self._on_report()
        return body

    def _hold_results(self, uid: Uid, pod: Pod, parts: Parts) -> None:
        """Have the results of a report written with the job's next status; those of one that has ended never are."""
        if parts.unfit and not (pace := self._pace[pod.uid]).told:
            self._pace[pod.uid] = pace._replace(told=True)
            log.warning("results left out of a report", pod=f"{pod.namespace}/{pod.name}", why=parts.unfit)
        job = self._state.read_job(uid)
        if parts.results is None or job is None or (job.status.phase and job.status.phase.terminal):
            return
        if not any(held.rank for held in job.status.assignments if held.pod == pod.name):
            self._state.hold_results(uid, parts.results)

    async def _sender(self, request: web.Request) -> tuple[Pod, Job]:
        """The live pod that sent the request, and its job, which is the one in the path."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token or not token.isascii():
            raise Refused(HTTPStatus.UNAUTHORIZED, "send the pod's token: Authorization: Bearer TOKEN")
        try:
            sender = await self._tokens.sender(token.strip())
        except Unauthorized as error:
            raise Refused(HTTPStatus.UNAUTHORIZED, str(error)) from error
        except ConnectionProblem as error:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE, "the cluster's token keys cannot be read at the moment"
            ) from error
        where = request.match_info
        kind = kinds.KIND_OF.get(where["plural"])
        if kind is None:
            raise Refused(HTTPStatus.NOT_FOUND, f"there are no {where['plural']}; write trainingjobs or inferencejobs")
        if sender.namespace != where["namespace"]:
            raise Refused(HTTPStatus.FORBIDDEN, f"the token belongs to namespace {sender.namespace}")
        pod = self._state.pods.get((sender.namespace, sender.pod))
        if pod is None or pod.uid != sender.uid or not pod.live:
            raise Refused(HTTPStatus.FORBIDDEN, f"the token's pod {sender.pod} is not a live pod")
        job = self._state.job_named((kind, where["namespace"], where["name"]))
        if job is None:
            raise Refused(HTTPStatus.NOT_FOUND, f"there is no {kind} {where['namespace']}/{where['name']}")
        held = self._state.pod_of(job.uid, pod.name)
        if held is None or held.uid != pod.uid:
            raise Refused(HTTPStatus.FORBIDDEN, f"the token's pod {sender.pod} is not one of {kind} {job.name}")
        if all(held.pod != pod.name for held in job.status.assignments):
            raise Refused(HTTPStatus.FORBIDDEN, f"the token's pod {sender.pod} belongs to an attempt that has ended")
        return pod, job

    def _may(self, pod: Pod) -> _Pace:
        now = clock.monotonic()
        pace = self._pace.pop(pod.uid, None) or _Pace(BURST, now, -1)
        tokens = min(BURST, pace.tokens + (now - pace.at) * self._per_second)
        allowed = tokens >= 1
        pace = pace._replace(tokens=tokens - 1 if allowed else tokens, at=now)
        self._pace[pod.uid] = pace
        if len(self._pace) > REMEMBERED:
            self._pace.popitem(last=False)
        if not allowed:
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, f"at most {self._per_second:g} reports a second")
        return pace


def _sequence(job: Job, index: int) -> int:
    """The sequence that the job's status holds for one of its pods; -1: none.

    Every pod counts its own reports. Of a job of several nodes the status holds what its first one reported.
    """
    progress = job.status.progress if index == 0 else None
    if job.status.shards is not None:
        progress = job.status.shards.progress.get(str(index))
    return progress.sequence if progress is not None and progress.sequence is not None else -1


def _answer(code: HTTPStatus, message: str) -> web.Response:
    metrics.reports.labels(str(code)).inc()
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": REASONS[code],
        "message": message,
        "code": code,
    }
    headers = {"Retry-After": WAIT[code]} if code in WAIT else None
    return web.Response(status=code, body=orjson.dumps(body), content_type="application/json", headers=headers)
