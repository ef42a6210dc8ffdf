"""Reports of pods: who is believed, which is newest, and that none that was taken is lost."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from msgspec.structs import replace
from structlog.testing import capture_logs
from unit.shell.bodies import A1, A2, job_body, pod_body

from rfuav_crds import contract
from rfuav_operator.core.model import Defaults, Kind, Progress, Uid
from rfuav_operator.shell import metrics
from rfuav_operator.shell.reading import ingest
from rfuav_operator.shell.reading.state import ClusterState
from rfuav_operator.shell.serving.intake import Intake
from rfuav_operator.shell.serving.tokens import Sender

U1 = Uid("u1")
PATH = "/apis/rfuav.io/v1alpha1/namespaces/ns/trainingjobs/a/status"


class AnyToken:
    """Believes that a token names its pod."""

    async def sender(self, token: str) -> Sender:
        return Sender("ns", token, f"uid-{token}")


class Desk:
    def __init__(self) -> None:
        self.state = ClusterState(Defaults())
        self.nudged = 0
        self.intake = Intake(
            self.state,
            AnyToken(),
            leading=lambda: True,
            on_report=self._count,
            per_second=100,  # type: ignore[arg-type]
        )
        self.version = 1
        self.holds(A1)
        for name in (A1, A2):
            ingest.pod(self.state, json.loads(json.dumps(pod_body(name, uid=f"uid-{name}", phase="Running"))))
        self.client: TestClient[Any, Any]

    def _count(self) -> None:
        self.nudged += 1

    def holds(self, pod: str, phase: str = "Running", **progress: Any) -> None:
        """The job as read from the API server."""
        self.version += 1
        status = {"phase": phase, "attempt": 1, "assignments": [{"pod": pod}]} | (
            {"progress": progress} if progress else {}
        )
        assert ingest.job(self.state, Kind.TRAINING, job_body(version=self.version, status=status))

    async def post(self, percent: int, sequence: int | None = None, *, pod: str = A1, data: Any = None) -> int:
        own = {} if sequence is None else {"rfuav": {"sequence": sequence}}
        body = data or json.dumps({"trainerStatus": {"progressPercentage": percent, **own}}).encode()
        answer = await self.client.post(PATH, data=body, headers={"Authorization": f"Bearer {pod}"})
        return answer.status

    def percents(self, *jobs: Uid) -> list[int | None]:
        return [report.progress.percent for report in self.intake.take(jobs)]


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    async with TestClient(TestServer(made.intake.app())) as made.client:
        yield made


async def test_the_newest_report_of_a_pod_is_handed_out():
    async with desk() as d:
        assert [await d.post(10, 1), await d.post(20, 2)] == [200, 200]
        assert d.percents() == [20]
        assert d.nudged == 2


async def test_a_live_pod_that_holds_no_place_is_not_believed():
    before = metrics.registry.get_sample_value("rfuav_progress_reports_total", {"code": "403"}) or 0
    async with desk() as d:
        assert await d.post(10, 1, pod=A2) == 403
        assert d.percents(U1) == []
    assert metrics.registry.get_sample_value("rfuav_progress_reports_total", {"code": "403"}) == before + 1


async def test_a_pod_that_was_written_again_is_still_believed():
    """By somebody who annotated it, or by the kubelet: nothing that the operator reads changed."""
    async with desk() as d:
        again = pod_body(A1, uid=f"uid-{A1}", phase="Running", version=99)
        ingest.pod(d.state, json.loads(json.dumps(again)))
        assert await d.post(10, 1) == 200


async def test_a_report_that_was_taken_is_kept_until_a_status_holds_it():
    async with desk() as d:
        await d.post(10, 1)
        assert d.percents() == [10]
        assert d.percents() == []  # nothing new came, and nobody asks
        assert d.percents(U1) == [10]  # the write failed, and the job is decided again
        job = d.state.job(U1)
        assert job is not None
        d.state.plan_status(U1, replace(job.status, progress=Progress(percent=10, sequence=1)))
        assert d.percents(U1) == [10]  # planned is not written
        d.holds(A1, percent=10, sequence=1)
        assert d.percents(U1) == []


async def test_nothing_is_kept_for_a_job_that_ended_or_went_on_without_the_pod():
    for phase, pod in (("Succeeded", A1), ("Running", A2)):
        async with desk() as d:
            await d.post(10, 1)
            d.holds(pod, phase)
            assert d.percents(U1) == []
            assert not d.intake._kept


async def test_what_an_earlier_leader_wrote_is_not_taken_again():
    async with desk() as d:
        d.holds(A1, percent=50, sequence=7)
        assert await d.post(60, 7) == 409
        assert await d.post(60, 8) == 200
        assert await d.post(70) == 200  # a client that counts none
        assert [report.sequence for report in d.intake.take()] == [9]


async def test_every_pod_of_a_gang_counts_its_own_reports():
    """The first is far ahead; nothing of the second's but its GPU is kept, so nothing else is owed."""
    async with desk() as d:
        both = [{"pod": A1, "rank": 0}, {"pod": A2, "rank": 1}]
        told = {"phase": "Running", "attempt": 1, "assignments": both, "progress": {"sequence": 500}}
        assert ingest.job(d.state, Kind.TRAINING, job_body(version=50, status=told))
        second = pod_body(
            A2, uid=f"uid-{A2}", version=9, phase="Running", metadata={"labels": {contract.LABEL_RANK: "1"}}
        )
        ingest.pod(d.state, second)
        own = {"trainerStatus": {"rfuav": {"sequence": 1, "gpuUUID": "GPU-2"}}}
        assert await d.post(0, pod=A2, data=json.dumps(own).encode()) == 200
        assert await d.post(0, 1, pod=A2) == 409
        assert await d.post(10, 500) == 409
        assert [report.gpu_uuid for report in d.intake.take()] == ["GPU-2"]
        assert await with_results(d, {"classes": ["a"]}, pod=A2) == 200
        assert d.state.results_of(U1) is None  # the first pod speaks for all
        both[1]["gpuUUID"] = "GPU-2"
        assert ingest.job(d.state, Kind.TRAINING, job_body(version=51, status=told))
        assert d.intake.take([U1]) == []


async def with_results(d: Desk, results: Any, *, pod: str = A1) -> int:
    body = {"trainerStatus": {"progressPercentage": 10, "rfuav": {"results": results}}}
    return await d.post(0, pod=pod, data=json.dumps(body).encode())


async def test_results_are_held_for_the_next_write():
    async with desk() as d:
        assert await with_results(d, {"classes": ["a\x07"], "mine": 1}) == 200
        assert d.state.results_of(U1) == '{"classes":["a\ufffd"]}'.encode()
        assert await d.post(20) == 200  # says nothing of results: those stay
        assert d.state.results_of(U1) is not None


async def test_hostile_results_are_left_out_with_a_word_and_the_report_counts():
    async with desk() as d:
        with capture_logs() as logs:
            for odd in ([1], {"confusion": [[0, 0, 1]]}, {"classes": ["x" * 250] * 64}, {"bySNR": [["1", 2, 3]]}):
                assert await with_results(d, odd) == 200
        assert d.state.results_of(U1) is None
        assert d.percents() == [10]
        words = [line for line in logs if line["event"] == "results left out of a report"]
        assert [line["why"] for line in words] == ["trainerStatus.rfuav.results: Expected `object`, got `array`"]


async def test_results_of_a_job_that_has_ended_are_not_held():
    async with desk() as d:
        d.holds(A1, "Succeeded")
        assert await with_results(d, {"classes": ["a"]}) == 200
        assert d.state.results_of(U1) is None


async def test_a_slow_body_does_not_overtake_a_newer_report():
    async with desk() as d:
        go = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b'{"trainerStatus": {"progressPercentage": 1, '
            await go.wait()
            yield b'"rfuav": {"sequence": 1}}}'

        slow = asyncio.create_task(d.post(0, data=slowly()))
        await asyncio.sleep(0.05)
        assert await d.post(2, 2) == 200
        go.set()
        assert await slow == 409
        assert d.percents() == [2]


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 5000,
        b'{"a":' * 2000,
        b'{"trainerStatus":{"x":' + b"[" * 1000 + b"]" * 1000 + b"}}",
        b'{"trainerStatus":{"metrics":[{"name":"a","value":' + b"[" * 900 + b"]" * 900 + b"}]}}",
        b'{"trainerStatus":{"rfuav":{"epoch":' + b"9" * 5000 + b"}}}",
        b'{"trainerStatus":{"rfuav":{"gpuUUID":"\\ud83d"}}}',
        b"\xff\xfe",
        b"null",
        b'{"trainerStatus":{"progressPercentage":NaN}}',
    ],
)
async def test_a_body_that_is_built_to_break_its_reader_is_taken_or_refused(data):
    async with desk() as d:
        assert await d.post(0, data=data) in (200, 422)


async def test_an_estimate_without_end_is_taken_and_counts_as_ten_years():
    async with desk() as d:
        assert await d.post(0, data=b'{"trainerStatus":{"estimatedRemainingSeconds":3e11}}') == 200
        assert [r.progress.remaining_seconds for r in d.intake.take([U1])] == [315_360_000]


async def test_an_error_of_one_report_is_answered_and_affects_nothing_else(monkeypatch):
    def broken(_body: Any) -> Any:
        raise RuntimeError("something nobody thought of")

    async with desk() as d:
        with monkeypatch.context() as patched:
            patched.setattr("rfuav_operator.shell.serving.intake.parse_trainer_status", broken)
            assert await d.post(1) == 500
        assert await d.post(2) == 200


async def test_the_answer_is_the_document_as_it_was_sent():
    async with desk() as d:
        answer = await d.client.post(
            PATH,
            data=b'{"trainerStatus": {"progressPercentage": 5, "more": [1]}}',
            headers={"Authorization": f"Bearer {A1}"},
        )
        assert await answer.json() == {"trainerStatus": {"progressPercentage": 5, "more": [1]}}
