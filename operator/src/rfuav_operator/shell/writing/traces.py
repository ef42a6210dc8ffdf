"""One trace a job, in OpenTelemetry's protocol: queued, bound, pulled, first step, running.

In: statuses as they were written, with the instants that they record. Out: spans, sent by a thread of the SDK. Nothing
is kept of a job: its UID gives the ids of its trace and of its first span, so spans that are made at different times,
or by different leaders, come together. Only where OTEL_* variables name a receiver; nothing is imported without.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import structlog

from rfuav_operator.core.model import Job, JobStatus, Phase, Pod, Progress

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

log = structlog.get_logger()

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_NOTHING: Mapping[str, Pod] = {}


class Part(NamedTuple):
    """A part of a job's life."""

    name: str
    begin: datetime
    end: datetime


def parts(status: JobStatus, pods: Iterable[Pod]) -> Iterator[Part]:
    """The parts of a job that has ended, as far as its status records their instants.

    A job that was admitted more than once records its first start and its last admission: then what is between the
    queue and the first start cannot be told apart, and is `queued` as a whole.
    """
    queued, admitted, started, ended = status.queued_at, status.admitted_at, status.started_at, status.finished_at
    if queued is None or ended is None:
        return
    known = admitted is not None and (started is None or admitted <= started)
    yield Part("queued", queued, (admitted if known else started) or ended)
    if admitted is not None and known:
        bound = min(
            (pod.bound_at for pod in pods if pod.bound_at is not None and pod.bound_at >= admitted), default=None
        )
        if bound is not None and bound <= (started or ended):
            yield Part("bound", admitted, bound)
            yield Part("pulled", bound, started or ended)
        else:
            yield Part("starting", admitted, started or ended)
    if started is not None:
        yield Part("running", started, ended)


def first_step(before: JobStatus, after: JobStatus) -> Part | None:
    """From the first container to the report of the first step, if that is the report that was written."""
    if after.started_at is None or _done(before.progress) or not _done(after.progress):
        return None
    at = after.progress.updated_at if after.progress is not None else None
    return Part("first step", after.started_at, max(at, after.started_at)) if at is not None else None


def _done(progress: Progress | None) -> int:
    """Something that grows with the first step of a training, or the first input of an inference."""
    return 0 if progress is None else (progress.epoch or 0) + (progress.step or 0) + (progress.processed or 0)


class Traces:
    """Makes spans and sends them.

    Args:
        exporter: sends them.
        instance: this process.
    """

    def __init__(self, exporter: "SpanExporter", instance: str) -> None:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  only where traces are wanted
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        self._ids = _ids()
        service = os.environ.get("OTEL_SERVICE_NAME", "rfuav-operator")
        resource = Resource.create({"service.name": service, "service.instance.id": instance})
        self._provider = TracerProvider(resource=resource, id_generator=self._ids)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("rfuav_operator")

    @classmethod
    def from_environment(cls, instance: str) -> Self | None:
        """Traces to the receiver that OTEL_* variables name; None: there is none."""
        if not any(os.environ.get(name) for name in ENDPOINTS) or os.environ.get("OTEL_SDK_DISABLED") == "true":
            return None
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        except ImportError:
            log.warning("no traces are sent: install rfuav-operator[tracing], or unset OTEL_EXPORTER_OTLP_ENDPOINT")
            return None
        log.info("traces are sent over HTTP", protocol="http/protobuf")
        return cls(OTLPSpanExporter(), instance)

    def written(self, job: Job, after: JobStatus, pods: Mapping[str, Pod] = _NOTHING) -> None:
        """A job's status was written over `job.status`: make the spans that can be told now."""
        begun = first_step(job.status, after)
        if begun is not None:
            self._child(job, begun)
        if after.phase is None or not after.phase.terminal or job.status.phase is after.phase:
            return
        found = list(parts(after, pods.values()))
        if not found:
            return
        self._root(job, after, found[0].begin, found[-1].end)
        for part in found:
            self._child(job, part)

    def close(self) -> None:
        """Send what is left; takes seconds at most."""
        self._provider.shutdown()

    def _root(self, job: Job, status: JobStatus, begin: datetime, end: datetime) -> None:
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

        self._ids.trace, self._ids.span = _of(job)
        resources = job.spec.resources
        span = self._tracer.start_span(
            job.kind.value,
            start_time=_nanoseconds(begin),
            attributes={
                "k8s.namespace.name": job.namespace,
                "rfuav.job.name": job.name,
                "rfuav.job.uid": job.uid,
                "rfuav.pool": job.spec.pool,
                "rfuav.gpus": resources.gpus,
                "rfuav.phase": status.phase.value if status.phase else "",
                "rfuav.reason": status.reason,
                "rfuav.attempts": status.attempt,
            },
        )
        for failure in status.failures:
            words: dict[str, str | bool] = {
                "rfuav.reason": failure.reason,
                "rfuav.counted": failure.counted,
                "k8s.pod.name": failure.pod,
            }
            span.add_event("pod failed", words, _nanoseconds(failure.finished_at))
        if status.phase is Phase.FAILED:
            span.set_status(Status(StatusCode.ERROR, f"{status.reason}: {status.message}"))
        span.end(_nanoseconds(end))

    def _child(self, job: Job, part: Part) -> None:
        from opentelemetry import trace  # noqa: PLC0415

        trace_id, span_id = _of(job)
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
        parent = trace.NonRecordingSpan(trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags))
        self._ids.span = _number(f"{job.uid}/{part.name}", 8)
        span = self._tracer.start_span(
            part.name, context=trace.set_span_in_context(parent), start_time=_nanoseconds(part.begin)
        )
        span.end(_nanoseconds(max(part.begin, part.end)))


def _of(job: Job) -> tuple[int, int]:
    """The ids of a job's trace and of its first span."""
    return _number(job.uid, 16), _number(f"{job.uid}/", 8)


def _number(text: str, size: int) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:size], "big") or 1


def _nanoseconds(instant: datetime) -> int:
    return int(instant.timestamp()) * 10**9 + instant.microsecond * 1000


def _ids() -> Any:
    """A generator that gives the ids that were put into it."""
    from opentelemetry.sdk.trace.id_generator import IdGenerator  # noqa: PLC0415

    class Ids(IdGenerator):
        trace, span = 1, 1

        def generate_trace_id(self) -> int:
            return self.trace

        def generate_span_id(self) -> int:
            return self.span

    return Ids()
