"""One trace a job, at a receiver that decodes what OpenTelemetry's exporter sends."""

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from msgspec.structs import replace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from unit.core.builders import T0, after, job, pod_of

from rfuav_operator.core.model import Assignment, Failure, Job, JobStatus, Phase, Progress
from rfuav_operator.shell.writing.traces import Traces


class Receiver:
    """What a collector has got, by the name of the span."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.spans: dict[str, Any] = {}
        self.services: set[str] = set()

    def take(self, path: str, body: bytes) -> None:
        self.paths.append(path)
        for part in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services |= {a.value.string_value for a in part.resource.attributes if a.key == "service.name"}
            for scope in part.scope_spans:
                self.spans |= {span.name: span for span in scope.spans}

    def seconds(self, name: str) -> tuple[float, float]:
        """When a span begins and ends, since T0."""
        begin = int(T0.timestamp() * 10**9)
        span = self.spans[name]
        return (span.start_time_unix_nano - begin) / 10**9, (span.end_time_unix_nano - begin) / 10**9


@pytest.fixture
def receiver(monkeypatch) -> Iterator[Receiver]:
    got = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.take(self.path, gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield got
    server.shutdown()
    thread.join()
    server.server_close()


def sent(*steps: tuple[Job, JobStatus], pods: Any = None) -> None:
    traces = Traces.from_environment("pod-a")
    assert traces is not None
    for before, status in steps:
        traces.written(before, status, pods or {})
    traces.close()


HELD = Assignment(pod="p", node="n1", gpus=1)
QUEUED = JobStatus(phase=Phase.QUEUED, queued_at=T0)
RUNNING = replace(QUEUED, phase=Phase.RUNNING, admitted_at=after(30), started_at=after(42), assignments=(HELD,))
STEPPED = replace(RUNNING, progress=Progress(epoch=0, step=1, updated_at=after(50)))
DONE = replace(STEPPED, phase=Phase.SUCCEEDED, reason="Succeeded", attempt=1, finished_at=after(100), assignments=())


def test_the_parts_of_a_job_are_the_instants_of_its_status(receiver):
    held = job("a", status=RUNNING)
    pod = pod_of(held, bound_at=after(33))
    sent((held, STEPPED), (replace(held, status=STEPPED), DONE), pods={pod.name: pod})
    assert receiver.services == {"rfuav-operator"}
    assert set(receiver.paths) == {"/v1/traces"}
    assert {name: receiver.seconds(name) for name in receiver.spans} == {
        "TrainingJob": (0, 100),
        "queued": (0, 30),
        "bound": (30, 33),
        "pulled": (33, 42),
        "first step": (42, 50),
        "running": (42, 100),
    }
    root = receiver.spans["TrainingJob"]
    assert not root.parent_span_id
    assert {span.trace_id for span in receiver.spans.values()} == {root.trace_id}
    assert {span.parent_span_id for name, span in receiver.spans.items() if name != "TrainingJob"} == {root.span_id}
    assert len({span.span_id for span in receiver.spans.values()}) == 6
    found = {a.key: a.value.string_value or a.value.int_value for a in root.attributes}
    assert found["rfuav.job.name"] == "a"
    assert found["k8s.namespace.name"] == "team"
    assert found["rfuav.gpus"] == 1


def test_a_span_of_an_earlier_leader_is_of_the_same_trace(receiver):
    held = job("a", status=RUNNING)
    sent((held, STEPPED))
    sent((replace(held, status=STEPPED), DONE))
    assert receiver.spans["first step"].trace_id == receiver.spans["TrainingJob"].trace_id
    assert receiver.spans["first step"].parent_span_id == receiver.spans["TrainingJob"].span_id


def test_a_failure_is_an_event_and_a_failed_job_an_error(receiver):
    failure = Failure(attempt=1, pod="p", reason="OutOfMemory", finished_at=after(60), counted=True)
    failed = replace(DONE, phase=Phase.FAILED, reason="OutOfMemory", message="it needs 9Gi", failures=(failure,))
    sent((job("a", status=STEPPED), failed))
    root = receiver.spans["TrainingJob"]
    assert (root.status.code, root.status.message) == (2, "OutOfMemory: it needs 9Gi")
    assert [event.name for event in root.events] == ["pod failed"]


def test_a_job_that_was_admitted_again_says_no_more_than_is_known(receiver):
    sent((job("a", status=STEPPED), replace(DONE, admitted_at=after(70), attempt=2)))
    assert {name: receiver.seconds(name) for name in receiver.spans} == {
        "TrainingJob": (0, 100),
        "queued": (0, 42),
        "running": (42, 100),
    }


def test_a_job_that_never_ran_was_queued(receiver):
    sent((job("a", status=QUEUED), replace(QUEUED, phase=Phase.CANCELLED, finished_at=after(9))))
    assert {name: receiver.seconds(name) for name in receiver.spans} == {"TrainingJob": (0, 9), "queued": (0, 9)}


def test_a_write_that_ends_nothing_sends_nothing(receiver):
    sent((job("a", status=QUEUED), RUNNING), (job("a", status=DONE), replace(DONE, message="x")))
    assert receiver.spans == {}


def test_without_a_receiver_nothing_is_imported():
    code = (
        "import sys; from rfuav_operator.shell.writing.traces import Traces;"
        "assert Traces.from_environment('x') is None;"
        "sys.exit(any(name.startswith('opentelemetry.sdk') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, env={}).returncode == 0


def test_a_receiver_that_is_away_costs_the_job_nothing(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    sent((job("a", status=STEPPED), DONE))
