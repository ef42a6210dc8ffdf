"""The writer against a real HTTP server that conflicts, refuses, stays silent or loses answers."""

import asyncio
import itertools
import json
import math
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from aiohttp import web
from msgspec.structs import replace
from simulation.api import merged
from unit.kube.fake_api import FakeApi, answer, serving, until
from unit.shell.bodies import A1, A2, A3, job_body, pod_body

from rfuav_kube import keyed_writer
from rfuav_kube import lane as kube_lane
from rfuav_kube.requester import LeaseOver
from rfuav_operator.core.model import (
    Assignment,
    CreatePod,
    Defaults,
    DeleteJob,
    DeletePod,
    Job,
    JobStatus,
    Kind,
    PatchStatus,
    Phase,
    Progress,
    ShardCounts,
    Uid,
)
from rfuav_operator.core.stored import packing
from rfuav_operator.settings import Writes
from rfuav_operator.shell import metrics
from rfuav_operator.shell.reading import ingest
from rfuav_operator.shell.reading.state import ClusterState
from rfuav_operator.shell.writing import lane
from rfuav_operator.shell.writing.events import Events
from rfuav_operator.shell.writing.writer import Writer

U1 = Uid("u1")


class Bench:
    """A writer with its state, and a server that holds one job and its pods."""

    def __init__(self, api: FakeApi, state: ClusterState, writer: Writer) -> None:
        self.api, self.state, self.writer = api, state, writer
        held = [{"pod": name} for name in (A1, A2, A3)]
        self.job = job_body(version=1, status={"phase": "Queued", "assignments": held})
        self.pods: dict[str, Any] = {}
        self.version = 1
        self.left = 60.0
        api.handle = self.serve
        ingest.job(state, Kind.TRAINING, self.job)

    def next(self) -> str:
        self.version += 1
        return str(self.version)

    async def serve(self, request: web.Request, body: Any) -> web.StreamResponse:
        if request.path.endswith("/status"):
            if body["metadata"]["resourceVersion"] != self.job["metadata"]["resourceVersion"]:
                return answer(409, {"reason": "Conflict", "message": "modified"})
            self.job["status"] = {**self.job["status"], **body["status"]}
            self.job["metadata"]["resourceVersion"] = self.next()
            return answer(200, self.job)
        if "/trainingjobs/" in request.path:
            return answer(200, self.job)
        name = request.path.rpartition("/")[2]
        if request.method == "POST" and name == "services":
            return answer(201, body)
        if request.method == "POST":
            name = body["metadata"]["name"]
            if name in self.pods:
                return answer(409, {"reason": "AlreadyExists", "message": "already exists"})
            self.pods[name] = pod_body(name, version=int(self.next()))
            return answer(201, self.pods[name])
        if name not in self.pods:
            return answer(404, {"reason": "NotFound"})
        if request.method == "DELETE":
            return answer(200, self.pods.pop(name))
        return answer(200, self.pods[name])

    def user_changes(self) -> None:
        """Somebody else writes the job, and the watch has not told yet."""
        self.job["metadata"]["resourceVersion"] = self.next()

    @property
    def known(self) -> Job:
        """The job as the operator has it."""
        job = self.state.job(U1)
        assert job is not None
        return job

    def status(self, phase: Phase = Phase.ADMITTED, *, urgent: bool = True, percent: int | None = None) -> PatchStatus:
        job = self.known
        progress = None if percent is None else Progress(percent=percent)
        action = PatchStatus(job=job, status=replace(job.status, phase=phase, progress=progress), urgent=urgent)
        self.state.plan_status(U1, action.status)
        return action

    def create(self, name: str = A1, *, service: Any = None) -> CreatePod:
        self.state.begin_create(U1, name)
        manifest = {"metadata": {"name": name}}
        return CreatePod(job_uid=U1, namespace="ns", name=name, manifest=manifest, service=service)

    def edit(self, **spec: Any) -> None:
        """The user changes the job, and the watch tells."""
        self.job["spec"] |= spec
        self.job["metadata"] |= {"resourceVersion": self.next(), "generation": 2}
        ingest.job(self.state, Kind.TRAINING, self.job)

    def refuse(
        self,
        method: str,
        code: int,
        *,
        what: str = "/pods",
        words: str = "failed calling webhook x",
        reason: str = "InternalError",
        times: float = math.inf,
        **headers: str,
    ) -> None:
        """From now on, requests of a sort are answered so, `times` of them."""
        refused = itertools.count()

        async def refuses(request: web.Request, body: Any) -> web.StreamResponse:
            if request.method == method and what in request.path and next(refused) < times:
                return answer(code, {"reason": reason, "message": words}, **headers)
            return await self.serve(request, body)

        self.api.handle = refuses

    def run_others(self, count: int) -> list[Job]:
        """Other jobs run: j0, j1, ..."""
        for index in range(count):
            body = job_body(f"j{index}", uid=f"x{index}", version=100 + index, status={"phase": "Running"})
            ingest.job(self.state, Kind.TRAINING, body)
        return [job for index in range(count) if (job := self.state.job(Uid(f"x{index}"))) is not None]

    def hold_up(self, method: str, what: str = "") -> asyncio.Event:
        """From now on, requests of a sort are served only when the event is set."""
        go_on = asyncio.Event()

        async def slow(request: web.Request, body: Any) -> web.StreamResponse:
            if request.method == method and what in request.path:
                await go_on.wait()
            return await self.serve(request, body)

        self.api.handle = slow
        return go_on

    def sent(self, method: str) -> list[Any]:
        return [body for m, _, body in self.api.seen if m == method]


@asynccontextmanager
async def bench(folder: Path, **limits: Any) -> AsyncIterator[Bench]:
    async with serving(folder) as (api, connection):
        state = ClusterState(Defaults())
        holder: list[Bench] = []
        writer = Writer(connection, state, Events(connection, "test"), Writes(**limits), lambda: holder[0].left)
        holder.append(Bench(api, state, writer))
        task = asyncio.create_task(writer.run())
        await asyncio.sleep(0)
        try:
            yield holder[0]
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_the_record_stands_before_the_effect(tmp_path):
    async with bench(tmp_path) as b:
        b.writer.submit([b.status(), b.create()])
        await until(lambda: b.state.pod_of(U1, A1))
        assert [method for method, _, _ in b.api.seen] == ["PATCH", "POST"]
        assert b.api.seen[0][2] == {"metadata": {"resourceVersion": "1"}, "status": {"phase": "Admitted"}}
        assert not b.state.snapshot().creating
        read = b.state.read_job(U1)
        assert read is not None
        assert read.status.phase is Phase.ADMITTED


async def test_a_conflict_drops_what_waited_behind_it_and_is_decided_again(tmp_path):
    async with bench(tmp_path) as b:
        b.user_changes()
        b.state.take_dirt()
        b.writer.submit([b.status(), b.create()])
        await until(lambda: not b.state.snapshot().creating)
        assert not b.sent("POST")
        job = b.known
        assert (job.resource_version, job.status.phase) == ("2", Phase.QUEUED)
        assert b.state.take_dirt().jobs == {U1}


async def test_a_decision_on_an_older_reading_is_not_even_sent(tmp_path):
    async with bench(tmp_path) as b:
        action = b.status()
        b.user_changes()
        ingest.job(b.state, Kind.TRAINING, b.job)
        b.writer.submit([action])
        await until(lambda: (job := b.state.job(U1)) and job.status.phase is Phase.QUEUED)
        assert not b.api.seen


async def test_decisions_made_during_our_own_write_follow_it(tmp_path):
    async with bench(tmp_path) as b:
        b.writer.submit([b.status(Phase.ADMITTED)])
        await until(lambda: b.api.seen)
        b.writer.submit([b.status(Phase.RUNNING)])  # decided before the first answer
        await until(lambda: b.job["status"]["phase"] == "Running")
        assert [p["metadata"]["resourceVersion"] for p in b.sent("PATCH")] == ["1", "2"]


async def test_nothing_changed_nothing_is_written(tmp_path):
    async with bench(tmp_path) as b:
        b.writer.submit([b.status(Phase.QUEUED)])
        await asyncio.sleep(0.05)
        assert not b.api.seen


async def test_what_was_stored_out_of_bounds_is_put_right_with_the_next_write(tmp_path):
    async with bench(tmp_path) as b:
        stored = {"phase": "Queued", "progress": {"percent": 3, "remainingSeconds": 300_000_000_000}}
        b.job = job_body(version=int(b.next()), status=stored)
        ingest.job(b.state, Kind.TRAINING, b.job)
        job = b.state.job(U1)
        action = PatchStatus(job=job, status=replace(job.status, phase=Phase.ADMITTED))
        b.state.plan_status(U1, action.status)
        b.writer.submit([action])
        await until(lambda: b.sent("PATCH"))
        assert b.sent("PATCH")[0]["status"] == {"phase": "Admitted", "progress": {"remainingSeconds": 315_360_000}}


RESULTS = b'{"history":{"epochs":[1],"valLoss":[0.5]}}'


async def test_results_go_with_the_next_write_once_and_replace_what_was_there(tmp_path):
    async with bench(tmp_path) as b:
        b.state.hold_results(U1, RESULTS)
        await asyncio.sleep(0.05)
        assert not b.api.seen  # they are no reason to write
        b.writer.submit([b.status()])
        await until(lambda: b.state.read_job(U1).status.phase is Phase.ADMITTED)
        b.writer.submit([b.status(Phase.RUNNING)])
        await until(lambda: b.state.read_job(U1).status.phase is Phase.RUNNING)
        first, second = (sent["status"] for sent in b.sent("PATCH"))
        assert merged({"history": {"epochs": [1, 2], "trainLoss": [1, 2]}, "classes": ["a"]}, first["results"]) == {
            "history": {"epochs": [1], "valLoss": [0.5]}
        }
        assert second == {"phase": "Running"}  # what is stored stays
        assert b.known.stored is None


async def test_results_that_came_during_a_write_go_with_the_next(tmp_path):
    async with bench(tmp_path) as b:
        go_on = b.hold_up("PATCH")
        b.state.hold_results(U1, RESULTS)
        b.writer.submit([b.status()])
        await until(lambda: b.sent("PATCH"))
        newer = RESULTS.replace(b"0.5", b"0.4")
        b.state.hold_results(U1, newer)
        go_on.set()
        await until(lambda: b.state.read_job(U1).status.phase is Phase.ADMITTED)
        assert b.state.results_of(U1) is newer


async def test_results_that_were_not_written_are_sent_again(tmp_path):
    async with bench(tmp_path) as b:
        b.state.hold_results(U1, RESULTS)
        b.user_changes()
        b.writer.submit([b.status()])
        await until(lambda: b.known.resource_version == "2")
        b.writer.submit([b.status()])
        await until(lambda: b.job["status"]["phase"] == "Admitted")
        assert b.sent("PATCH")[-1]["status"]["results"]["history"]["valLoss"] == [0.5]


async def test_a_status_that_is_refused_with_results_is_written_without_them(tmp_path, monkeypatch):
    monkeypatch.setattr(lane, "REFUSED_BACKOFF", 0.05)
    async with bench(tmp_path) as b:
        b.state.hold_results(U1, RESULTS)
        b.refuse("PATCH", 422, what="/status", times=1, reason="Invalid")
        b.writer.submit([b.status()])
        await until(lambda: b.state.results_of(U1) is None)
        await until(lambda: b.known.status.phase is Phase.QUEUED)
        b.writer.submit([b.status()])
        await until(lambda: b.job["status"]["phase"] == "Admitted")
        assert ["results" in sent["status"] for sent in b.sent("PATCH")] == [True, False]


async def test_stored_results_outlive_the_writes_of_an_operator_that_knows_none(tmp_path):
    """Also where the status is stored in another form, which is compared whole."""
    async with bench(tmp_path) as b:
        packed = packing.pack(JobStatus(phase=Phase.QUEUED, shards=ShardCounts(total=100, attempts={"1": 2})))
        b.job["status"] = {**packed, "results": msgspec.json.decode(RESULTS)}
        b.job["metadata"]["resourceVersion"] = b.next()
        ingest.job(b.state, Kind.TRAINING, b.job)
        assert b.known.stored is not None
        assert "results" not in b.known.stored
        b.writer.submit([b.status()])
        await until(lambda: b.job["status"]["phase"] == "Admitted")
        assert "results" not in b.sent("PATCH")[0]["status"]


def test_results_that_wait_go_with_their_job_and_its_end_and_with_the_term():
    state = ClusterState(Defaults())
    ingest.job(state, Kind.TRAINING, job_body(version=1))
    state.hold_results(U1, RESULTS)
    state.forget_plans()  # another leader may have written newer ones
    assert state.results_of(U1) is None
    state.hold_results(U1, RESULTS)
    ingest.job(state, Kind.TRAINING, job_body(version=2, status={"phase": "Succeeded"}))
    assert state.results_of(U1) is None  # nothing more will be written
    state.hold_results(U1, RESULTS)
    ingest.job_gone(state, Kind.TRAINING, job_body(version=3))
    assert state.results_of(U1) is None
    state.hold_results(U1, RESULTS)
    assert state.results_of(U1) is None


async def test_a_lost_answer_keeps_the_room_until_the_pod_is_found(tmp_path):
    async with bench(tmp_path, timeout_seconds=0.2) as b:
        serve, tries, answers = b.serve, [], asyncio.Event()

        async def loses_answers(request: web.Request, body: Any) -> web.StreamResponse:
            made = await serve(request, body)
            if request.method in ("POST", "GET") and not answers.is_set():
                tries.append(1)
                await asyncio.sleep(0.5)
            return made

        b.api.handle = loses_answers
        b.writer.submit([b.create()])
        await until(lambda: len(tries) >= 2)
        assert b.state.snapshot().creating == {U1: {A1}}
        answers.set()
        await until(lambda: b.state.pod_of(U1, A1))
        assert len(b.pods) == 1
        assert len(b.sent("POST")) == 1  # looked for, not made again: it might have ended and gone meanwhile
        await until(lambda: not b.state.snapshot().creating)


async def test_a_status_whose_answer_was_lost_is_read_again(tmp_path):
    async with bench(tmp_path, timeout_seconds=0.2) as b:

        async def loses_patches(request: web.Request, body: Any) -> web.StreamResponse:
            made = await b.serve(request, body)
            if request.method == "PATCH":
                await asyncio.sleep(0.4)
            return made

        b.api.handle = loses_patches
        b.writer.submit([b.status(), b.create()])
        await until(lambda: b.sent("GET"))
        await until(lambda: not b.state.snapshot().creating)
        read = b.state.read_job(U1)
        assert read is not None
        assert read.status.phase is Phase.ADMITTED  # it had been written
        assert not b.sent("POST")  # decided again first


@pytest.mark.parametrize("owner", ["u1", "somebody else"])
async def test_a_pod_that_exists_is_ours_or_is_not_touched(tmp_path, owner):
    async with bench(tmp_path) as b:
        b.pods[A1] = pod_body(A1, owner=owner, version=9)
        b.writer.submit([b.create()])
        await until(lambda: not b.state.snapshot().creating)
        assert (b.state.pod_of(U1, A1) is not None) is (owner == "u1")
        assert ("does not belong to this job" in b.state.snapshot().rejected.get(U1, "")) is (owner != "u1")


@pytest.mark.parametrize("refused", [False, True])
async def test_a_pod_that_a_webhook_changed_too_much_is_deleted_and_quoted(tmp_path, monkeypatch, refused):
    """Also where the delete has to be tried again: its room stays held until it is gone."""
    monkeypatch.setattr(lane, "REFUSED_BACKOFF", 0.2)
    async with bench(tmp_path) as b:
        if refused:
            b.refuse("DELETE", 403)
        asked = b.create()
        manifest = {"metadata": {"name": A1, "labels": {"rfuav.io/attempt": "7"}}}  # the server gives it another one
        b.writer.submit([msgspec.structs.replace(asked, manifest=manifest)])
        await until(lambda: b.sent("DELETE"))
        if refused:
            ingest.pod(b.state, b.pods[A1])  # a watch has brought it
            assert b.state.snapshot().creating == {U1: {A1}}
            b.api.handle = b.serve
        await until(lambda: not b.state.snapshot().creating)
        assert not b.pods
        assert b.sent("DELETE")[-1] == {"preconditions": {"uid": "p1"}}
        said = "a webhook or policy of the cluster changed its label rfuav.io/attempt, so it was deleted"
        assert b.state.snapshot().rejected == {U1: said}


@pytest.mark.parametrize("code", [400, 403, 422])
async def test_a_refused_pod_is_quoted(tmp_path, code):
    async with bench(tmp_path) as b:
        b.refuse("POST", code, words="exceeded quota: q", reason="Forbidden")
        b.writer.submit([b.create()])
        await until(lambda: b.state.snapshot().rejected)
        assert b.state.snapshot().rejected == {U1: "exceeded quota: q"}
        assert not b.state.snapshot().creating


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        (
            403,
            "Forbidden",
            'pods "a-1" is forbidden: unable to create new content in namespace ns because it is being terminated',
        ),
        (404, "NotFound", 'namespaces "ns" not found'),
    ],
)
async def test_a_namespace_that_is_being_deleted_is_quoted_and_asked_once(tmp_path, code, reason, words):
    async with bench(tmp_path) as b:
        b.refuse("POST", code, words=words, reason=reason)
        b.writer.submit([b.create()])
        await until(lambda: b.state.snapshot().rejected)
        assert b.state.snapshot().rejected == {U1: words}
        assert not b.state.snapshot().creating
        assert len(b.sent("POST")) == 1


async def test_too_many_requests_are_sent_again(tmp_path):
    async with bench(tmp_path) as b:
        b.refuse("PATCH", 429, what="/status", times=1, **{"Retry-After": "0"})
        b.writer.submit([b.status()])
        await until(lambda: b.job["status"]["phase"] == "Admitted")


async def test_a_job_that_is_gone_leaves_the_state(tmp_path):
    async with bench(tmp_path) as b:
        b.api.handle = b.api._nothing
        b.writer.submit([b.status(), b.create()])
        await until(lambda: U1 not in b.state.snapshot().jobs)
        assert not b.sent("POST")


async def test_a_pod_deleted_meanwhile_is_dropped(tmp_path):
    async with bench(tmp_path) as b:
        ingest.pod(b.state, pod_body(A1))
        b.writer.submit([DeletePod(job_uid=U1, namespace="ns", name=A1, uid=Uid("p1"))])
        await until(lambda: b.state.pod_of(U1, A1) is None)
        assert b.sent("DELETE") == [{"preconditions": {"uid": "p1"}}]


async def test_progress_is_written_at_most_once_in_its_interval_and_the_newest_wins(tmp_path):
    async with bench(tmp_path, progress_interval_seconds=0.4) as b:
        began = time.monotonic()
        for percent in range(30):
            b.writer.submit([b.status(Phase.QUEUED, urgent=False, percent=percent)])
            await asyncio.sleep(0.03)
        await until(lambda: b.job["status"].get("progress", {}).get("percent") == 29)
        assert 2 <= len(b.sent("PATCH")) <= (time.monotonic() - began) / 0.4 + 1


async def test_a_job_that_may_not_be_read_after_a_conflict_is_decided_again_after_a_pause(tmp_path, monkeypatch):
    monkeypatch.setattr(lane, "REFUSED_BACKOFF", 0.5)
    async with bench(tmp_path) as b:
        b.user_changes()
        b.refuse("GET", 403, what="/trainingjobs/", words="forbidden")
        action = b.status()
        b.state.take_dirt()
        b.writer.submit([action])
        await until(lambda: b.sent("GET"))
        await asyncio.sleep(0.1)
        assert not b.state.take_dirt().jobs
        await until(lambda: b.state.take_dirt().jobs)


async def test_the_budget_bounds_progress_of_all_jobs_but_no_transition(tmp_path):
    async with bench(tmp_path, progress_per_second=2, progress_interval_seconds=0) as b:
        others = b.run_others(12)
        b.api.seen.clear()

        async def accepts(request: web.Request, body: Any) -> web.StreamResponse:
            return answer(409, {"reason": "Conflict"}) if request.method == "PATCH" else answer(404, {})

        b.api.handle = accepts
        for job in others:
            b.writer.submit([PatchStatus(job=job, status=replace(job.status, attempt=1), urgent=False)])
        b.writer.submit([b.status()])
        await asyncio.sleep(0.6)
        paths = [path for method, path, _ in b.api.seen if method == "PATCH"]
        assert sum("/j" in path for path in paths) <= 2
        assert any(path.endswith("/a/status") for path in paths)


async def test_the_last_values_go_first_when_the_budget_is_short(tmp_path):
    async with bench(tmp_path, progress_per_second=4, progress_interval_seconds=0) as b:
        for index, job in enumerate(b.run_others(8)):
            status = replace(job.status, progress=Progress(percent=index))
            b.writer.submit([PatchStatus(job=job, status=status, urgent=False, final=index == 7)])
        await until(lambda: b.sent("PATCH"))
        first = next(path for method, path, _ in b.api.seen if method == "PATCH")
        assert first.endswith("/j7/status")


async def test_past_the_lease_nothing_is_written(tmp_path):
    async with serving(tmp_path) as (api, connection):
        state = ClusterState(Defaults())
        writer = Writer(connection, state, Events(connection, "test"), Writes(), lambda: -1.0)
        b = Bench(api, state, writer)
        writer.submit([b.status()])
        with pytest.raises(ExceptionGroup) as problems:
            await asyncio.wait_for(writer.run(), 60)
        assert problems.group_contains(LeaseOver)
        assert not api.seen


def given_up() -> float:
    """How many status writes have ended without an answer."""
    return metrics.registry.get_sample_value("rfuav_write_seconds_count", {"verb": "PATCH", "outcome": "unknown"}) or 0


async def test_no_request_reaches_beyond_the_lease(tmp_path):
    async with bench(tmp_path) as b:
        b.left = 0.2

        async def silent(request: web.Request, body: Any) -> web.StreamResponse:
            b.left = -1.0
            await asyncio.sleep(30)
            return answer(200, {})

        b.api.handle = silent
        before = given_up()
        b.writer.submit([b.status()])
        await until(lambda: given_up() > before)


async def test_once_drained_nothing_more_is_begun(tmp_path):
    """The lease is given back next: what is held back would come due while another leads."""
    async with bench(tmp_path, progress_per_second=100, progress_interval_seconds=0) as b:
        b.writer.submit([b.status(Phase.QUEUED, urgent=False, percent=10)])
        assert await b.writer.drain(1)
        await asyncio.sleep(0.3)
        assert not b.api.seen


# --- what the cluster does not let through


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Creates are given up after a fraction of a second."""
    monkeypatch.setattr(lane, "ENOUGH_SECONDS", 0.5)


@pytest.mark.parametrize("code", [429, 500, 503, 504])
async def test_a_create_that_fails_for_long_gives_its_room_back_and_is_quoted(tmp_path, impatient, code):
    async with bench(tmp_path) as b:
        b.refuse("POST", code)
        b.writer.submit([b.create()])
        await until(lambda: len(b.sent("POST")) >= 2)
        assert b.state.snapshot().creating == {U1: {A1}}  # not yet
        await until(lambda: not b.state.snapshot().creating)
        said = b.state.snapshot().rejected[U1]
        assert re.fullmatch(r"\d+ tries failed, the last one with: failed calling webhook x", said)
        assert b.api.seen[-1][0] == "GET"  # the pod is surely not there


async def test_a_create_that_is_not_answered_keeps_its_room_until_its_pod_was_looked_for(tmp_path, impatient):
    async with bench(tmp_path, timeout_seconds=0.2) as b:
        hidden = asyncio.Event()

        async def silent(request: web.Request, body: Any) -> web.StreamResponse:
            if request.method == "POST":
                await asyncio.sleep(1)
            elif not hidden.is_set():
                return answer(403, {"message": "pods may not be read"})
            return answer(404, {"reason": "NotFound"})

        b.api.handle = silent
        b.writer.submit([b.create()])
        await asyncio.sleep(1.2)
        assert b.state.snapshot().creating == {U1: {A1}}
        hidden.set()
        await until(lambda: not b.state.snapshot().creating)
        assert "no answer" in b.state.snapshot().rejected[U1]


async def test_a_status_passes_a_create_that_is_tried_again(tmp_path):
    async with bench(tmp_path) as b:
        b.refuse("POST", 500)
        b.writer.submit([b.create(A1), b.create(A2)])
        await until(lambda: b.sent("POST"))
        b.writer.submit([b.status(Phase.CANCELLED)])
        await until(lambda: b.job["status"]["phase"] == "Cancelled")
        assert not b.state.snapshot().rejected  # the create was not given up before


async def test_a_create_under_way_holds_up_a_status_and_the_other_creates_do_not(tmp_path):
    async with bench(tmp_path) as b:
        go_on = b.hold_up("POST")
        b.writer.submit([b.create(A1), b.create(A2)])
        await until(lambda: b.sent("POST"))
        b.writer.submit([b.status(Phase.CANCELLED)])
        await asyncio.sleep(0.1)
        assert not b.sent("PATCH")  # whether the pod is there must be known first
        go_on.set()
        await until(lambda: not b.state.snapshot().creating)
        assert [method for method, _, _ in b.api.seen] == ["POST", "PATCH"]
        assert list(b.pods) == [A1]  # the second was not sent any more


@pytest.mark.parametrize(
    "how", ["cancelled", "suspended", "ended", "deleted", "stopping", "the next attempt", "a job is gone"]
)
async def test_a_create_that_the_job_no_longer_needs_is_not_sent(tmp_path, how):
    async with bench(tmp_path) as b:
        b.refuse("POST", 500)
        b.writer.submit([b.create()])
        await until(lambda: b.sent("POST"))
        job = b.known
        match how:
            case "cancelled":
                b.edit(cancel=True)
            case "suspended":
                b.edit(suspend=True)
            case "ended":
                b.state.plan_status(U1, replace(job.status, phase=Phase.FAILED))
            case "deleted":
                b.job["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": b.next()}
                ingest.job(b.state, Kind.TRAINING, b.job)
            case "stopping":
                going = tuple(replace(a, stopping="Preempted") for a in job.status.assignments)
                b.state.plan_status(U1, replace(job.status, assignments=going))
            case "the next attempt":
                b.state.plan_status(U1, replace(job.status, assignments=(Assignment(pod="a-9"),)))
            case _:
                b.state.jobs.remove((Kind.TRAINING, "ns", "a"))
        b.api.handle = b.serve  # the webhook is well again
        sent = len(b.sent("POST"))
        await until(lambda: not b.state.snapshot().creating)
        assert len(b.sent("POST")) == sent
        assert not b.pods
        assert not b.state.snapshot().rejected


async def test_a_create_is_not_retried_when_its_pod_was_seen_and_is_gone(tmp_path):
    async with bench(tmp_path) as b:
        b.refuse("POST", 500)
        b.writer.submit([b.create()])
        await until(lambda: b.sent("POST"))
        ingest.pod(b.state, pod_body(A1, version=50))  # it had been made after all
        b.state.pods.remove(("ns", A1))
        b.api.handle = b.serve
        sent = len(b.sent("POST"))
        await until(lambda: not b.state.snapshot().creating)
        assert len(b.sent("POST")) == sent


async def test_all_creates_of_a_job_are_given_up_with_the_first(tmp_path, impatient):
    async with bench(tmp_path, timeout_seconds=0.2) as b:

        async def silent(request: web.Request, body: Any) -> web.StreamResponse:
            if request.method == "POST":
                await asyncio.sleep(1)
            return answer(404, {"reason": "NotFound"})

        b.api.handle = silent
        b.writer.submit([b.create(name) for name in (A1, A2, A3)])
        await until(lambda: not b.state.snapshot().creating)
        assert len(b.sent("POST")) <= 3


async def test_a_delete_that_is_refused_is_tried_again_and_holds_up_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(lane, "REFUSED_BACKOFF", 1.0)
    async with bench(tmp_path) as b:
        b.pods[A1] = pod_body(A1)
        ingest.pod(b.state, b.pods[A1])
        b.refuse("DELETE", 403)
        before = metrics.tried_again.labels("DeletePod")._value.get()
        b.writer.submit([DeletePod(job_uid=U1, namespace="ns", name=A1, uid=Uid("p1"))])
        await until(lambda: b.sent("DELETE"))
        b.writer.submit([b.status(Phase.RUNNING)])
        await until(lambda: b.job["status"]["phase"] == "Running")
        assert [method for method, _, _ in b.api.seen].index("PATCH") == 1  # before the second try
        b.api.handle = b.serve
        await until(lambda: not b.pods)
        assert metrics.tried_again.labels("DeletePod")._value.get() > before


async def test_a_job_whose_delete_is_refused_is_not_deleted_in_a_storm(tmp_path):
    async with bench(tmp_path) as b:
        b.refuse("DELETE", 403, what="/trainingjobs/")
        job = b.known
        for _ in range(5):
            b.writer.submit([DeleteJob(job=job)])
            await asyncio.sleep(0.05)
        assert len(b.sent("DELETE")) == 1


async def test_a_status_that_is_answered_with_500_is_not_written_in_a_storm(tmp_path):
    async with bench(tmp_path) as b:
        b.refuse("PATCH", 500, what="/status")
        end = time.monotonic() + 1
        while time.monotonic() < end:
            b.writer.submit([b.status()])
            await asyncio.sleep(0.01)
        assert 2 <= len(b.sent("PATCH")) <= 6


@pytest.mark.parametrize("code", [403, 422, 500])
async def test_a_service_that_is_refused_shows_on_the_job_and_no_pod_is_made(tmp_path, impatient, code):
    async with bench(tmp_path) as b:
        b.refuse("POST", code, what="/services", words="no more services")
        b.writer.submit([b.create(service={"metadata": {"name": "a-svc"}})])
        await until(lambda: not b.state.snapshot().creating)
        assert "its Service a-svc: no more services" in b.state.snapshot().rejected[U1]
        assert not b.pods


async def test_a_service_is_there_before_the_pods(tmp_path):
    async with bench(tmp_path) as b:
        service = {"metadata": {"name": "a-svc"}}
        b.writer.submit([b.create(A1, service=service), b.create(A2, service=service)])
        await until(lambda: len(b.pods) == 2)
        assert [path.rpartition("/")[2] for _, path, _ in b.api.seen] == ["services", "pods", "pods"]


async def test_creates_of_one_namespace_leave_room_for_others(tmp_path):
    """What admits pods in one namespace takes ten seconds over each; nobody else waits for that."""
    async with bench(tmp_path, parallel=4) as b:
        for index in range(8):
            body = job_body(f"j{index}", uid=f"x{index}", status={"phase": "Admitted", "assignments": [{"pod": "p"}]})
            ingest.job(b.state, Kind.TRAINING, body)
        makes = [
            CreatePod(job_uid=Uid(f"x{index}"), namespace=namespace, name="p", manifest={"metadata": {"name": "p"}})
            for index, namespace in enumerate(["ns"] * 7 + ["other"])
        ]
        await others_get_through(b, makes, "POST")


async def test_deletes_of_one_namespace_leave_room_for_others(tmp_path):
    """What looks at every deletion in one namespace takes its time; nobody else waits for that."""
    async with bench(tmp_path, parallel=4) as b:
        deletes = [
            DeletePod(job_uid=Uid(f"x{index}"), namespace=namespace, name=f"p{index}", uid=Uid("p"))
            for index, namespace in enumerate(["ns"] * 8 + ["other"])
        ]
        await others_get_through(b, deletes, "DELETE")


async def others_get_through(b, actions, method):
    """All but the last action are held up, and neither the last nor a status waits for them."""
    go_on = b.hold_up(method, "/ns/")
    b.writer.submit(actions[:-1])
    await until(lambda: b.sent(method))
    b.writer.submit([actions[-1], b.status()])
    await until(lambda: any("/other/" in path for _, path, _ in b.api.seen))
    await until(lambda: b.job["status"]["phase"] == "Admitted")
    go_on.set()


async def test_a_retry_after_of_days_is_not_obeyed(tmp_path, monkeypatch):
    monkeypatch.setattr("rfuav_kube.connection.LONGEST_WAIT", 0.2)
    async with bench(tmp_path) as b:
        b.refuse("PATCH", 429, what="/status", times=2, **{"Retry-After": "1000000"})
        b.writer.submit([b.status(), b.create()])
        await until(lambda: b.pods)


async def test_the_status_of_a_job_of_very_many_pods_is_not_written_for_each(tmp_path, monkeypatch):
    monkeypatch.setattr(kube_lane, "WIDE_SECONDS", 0.5)
    async with bench(tmp_path) as b:
        began = time.monotonic()
        for index in range(40):
            job = b.known
            held = (*job.status.assignments, Assignment(pod=f"a-{10 + index}"))
            status = replace(job.status, assignments=held)
            b.state.plan_status(U1, status)
            b.writer.submit([PatchStatus(job=job, status=status, wide=True), b.create(f"a-{10 + index}")])
            await asyncio.sleep(0.02)
        await until(lambda: len(b.pods) == 40)
        assert 2 <= len(b.sent("PATCH")) <= (time.monotonic() - began) / 0.5 + 1
        order = [(m, body) for m, _, body in b.api.seen if m in ("PATCH", "POST")]
        known: set[str] = set()
        for method, body in order:  # the record stands before the effect
            if method == "PATCH":
                known = {a["pod"] for a in body["status"]["assignments"]}
            else:
                assert body["metadata"]["name"] in known


async def test_the_end_of_a_job_of_very_many_pods_is_written_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(kube_lane, "WIDE_SECONDS", 3600.0)
    async with bench(tmp_path) as b:
        job = b.known
        b.writer.submit([PatchStatus(job=job, status=replace(job.status, attempt=1), wide=True)])
        await until(lambda: b.sent("PATCH"))
        await until(lambda: (read := b.state.read_job(U1)) and read.status.attempt == 1)
        b.writer.submit([PatchStatus(job=b.state.job(U1), status=replace(job.status, attempt=2), wide=True)])  # type: ignore[arg-type]
        b.writer.submit([b.status(Phase.CANCELLED)])
        await until(lambda: b.job["status"]["phase"] == "Cancelled")


# --- jobs of very many shards


def many_shards(*, rate: float | None = None) -> JobStatus:
    held = tuple(Assignment(pod=f"a-1-{i}", node=f"n{i // 4}", gpus=1, shard=i) for i in range(100))
    reports = {str(i): Progress(percent=10, sequence=7, samples_per_second=rate) for i in range(100)}
    shards = ShardCounts(total=100, attempts={str(i): 1 for i in range(100)}, progress=reports)
    return JobStatus(phase=Phase.RUNNING, assignments=held, shards=shards)


@asynccontextmanager
async def wide_bench(folder: Path, stored: Any) -> AsyncIterator[Bench]:
    async with bench(folder) as b:
        b.job = job_body(version=5, kind="InferenceJob", status=stored)
        b.state.jobs.remove((Kind.TRAINING, "ns", "a"))
        ingest.job(b.state, Kind.INFERENCE, b.job)

        async def serve(request: web.Request, body: Any) -> web.StreamResponse:
            b.job["status"] = merged(b.job["status"], body["status"])
            b.job["metadata"]["resourceVersion"] = str(int(b.job["metadata"]["resourceVersion"]) + 1)
            return answer(200, b.job)

        b.api.handle = serve
        yield b


@pytest.mark.parametrize("before", ["packed", "as older versions stored it"])
async def test_the_status_of_a_job_of_many_shards_is_stored_packed_and_read_whole(tmp_path, before):
    old = many_shards()
    stored = packing.pack(old) if before == "packed" else msgspec.to_builtins(old)
    async with wide_bench(tmp_path, json.loads(json.dumps(stored))) as b:
        read = b.state.read_job(U1)
        assert read is not None
        assert read.status == old
        new = many_shards(rate=3.0)
        started = replace(new.assignments[3], started_at=datetime(2026, 1, 1, tzinfo=UTC))
        new = replace(new, assignments=(*new.assignments[:3], started, *new.assignments[4:]))
        b.state.plan_status(U1, new)
        b.writer.submit([PatchStatus(job=read, status=new)])
        await until(lambda: b.state.read_job(U1).resource_version == "6")  # type: ignore[union-attr]
        assert b.job["status"] == packing.pack(new)  # nothing of the older form is left
        assert b.state.read_job(U1).status is new  # type: ignore[union-attr]  with the rates, which are not stored
        restarted = ClusterState(Defaults())
        ingest.job(restarted, Kind.INFERENCE, b.job)
        again = restarted.read_job(U1)
        assert again is not None
        assert {a.pod: a for a in again.status.assignments} == {a.pod: a for a in new.assignments}
        assert again.status.shards is not None
        assert again.status.shards.progress["3"] == Progress(percent=10, sequence=7)


async def test_nothing_is_written_for_what_is_not_stored(tmp_path):
    async with wide_bench(tmp_path, json.loads(json.dumps(packing.pack(many_shards())))) as b:
        read = b.state.read_job(U1)
        assert read is not None
        b.state.plan_status(U1, many_shards(rate=4.0))
        b.writer.submit([PatchStatus(job=read, status=many_shards(rate=4.0))])
        await asyncio.sleep(0.1)
        assert not b.api.seen


async def test_a_lane_whose_work_raises_waits_and_the_others_continue(tmp_path, monkeypatch):
    monkeypatch.setattr(keyed_writer, "FAULT_BACKOFF", 0.1)
    async with bench(tmp_path) as b:
        other = job_body("b", version=1, uid="u2", status={"phase": "Queued"})
        ingest.job(b.state, Kind.TRAINING, other)
        serve, tries = b.api.handle, []

        async def odd(request: web.Request, body: Any) -> web.StreamResponse:
            if "/b/" in request.path:
                tries.append(asyncio.get_running_loop().time())
                return answer(200, {"kind": "?"})  # what follows from it raises
            return await serve(request, body)

        b.api.handle = odd
        job = b.state.job(Uid("u2"))
        for _ in range(3):
            done = len(tries)
            b.state.take_dirt()
            b.writer.submit([PatchStatus(job=job, status=replace(job.status, phase=Phase.ADMITTED))])
            await until(lambda done=done: len(tries) > done)
            await until(lambda: Uid("u2") in b.state.take_dirt().jobs)  # decided again
        assert b.writer.set_aside() == 1
        assert tries[1] - tries[0] >= 0.1
        assert tries[2] - tries[1] >= 0.2
        b.writer.submit([b.status()])
        await until(lambda: b.state.read_job(U1).status.phase is Phase.ADMITTED)
        b.api.handle = serve


async def test_a_pod_that_cannot_be_put_into_json_is_refused_on_its_job_alone(tmp_path):
    async with bench(tmp_path) as b:
        b.writer.submit([replace(b.create(), manifest={"metadata": {"name": "\ud83d"}})])
        await until(lambda: b.state.snapshot().rejected.get(U1))
        assert "it cannot be sent" in b.state.snapshot().rejected[U1]
        b.writer.submit([b.status()])
        await until(lambda: b.state.read_job(U1).status.phase is Phase.ADMITTED)


def admitted_by_now() -> float:
    labels = {"pool": "default", "kind": "TrainingJob"}
    return metrics.registry.get_sample_value("rfuav_admission_wait_seconds_count", labels) or 0


async def test_a_wait_is_counted_when_its_status_is_written_and_not_when_that_is_refused(tmp_path):
    async with bench(tmp_path) as b:

        def admission() -> PatchStatus:
            job = b.known
            status = replace(job.status, phase=Phase.ADMITTED, admitted_at=datetime(2026, 1, 1, tzinfo=UTC))
            return PatchStatus(job=job, status=status)

        before = admitted_by_now()
        b.user_changes()
        b.writer.submit([admission()])
        await until(lambda: b.known.resource_version == "2")  # a conflict, so the job was read
        assert admitted_by_now() == before
        b.writer.submit([admission()])
        await until(lambda: b.known.resource_version == "3")
        assert admitted_by_now() == before + 1


async def test_queues_are_counted_by_what_they_wait_for(tmp_path):
    async with bench(tmp_path, progress_per_second=0.001) as b:
        assert b.writer.depth() == {"running": 0, "held_back": 0, "retrying": 0}
        go_on = b.hold_up("POST")
        b.writer.submit([b.create()])
        await until(lambda: len(b.sent("POST")) == 1)
        held = [PatchStatus(job=j, status=replace(j.status, message="x"), urgent=False) for j in b.run_others(3)]
        b.writer.submit(held)
        await asyncio.sleep(0.2)
        assert b.writer.depth() == {"running": 1, "held_back": 3, "retrying": 0}
        go_on.set()
        b.refuse("POST", 500)
        b.writer.submit([b.create(A2)])
        await until(lambda: b.writer.depth()["retrying"] == 1)


async def test_a_write_that_takes_long_is_seen(tmp_path):
    def slower_than(seconds: str) -> float:
        labels = {"verb": "PATCH", "outcome": "200"}
        total = metrics.registry.get_sample_value("rfuav_write_seconds_count", labels) or 0
        return total - (metrics.registry.get_sample_value("rfuav_write_seconds_bucket", labels | {"le": seconds}) or 0)

    async with bench(tmp_path) as b:
        before = slower_than("0.2")
        go_on = b.hold_up("PATCH")
        b.writer.submit([b.status()])
        await asyncio.sleep(0.3)
        go_on.set()
        await until(lambda: b.known.resource_version == "2")
        assert slower_than("0.2") == before + 1


async def test_what_is_logged_for_a_job_says_which_and_its_attempt(tmp_path):
    def keep(_logger: Any, _name: str, event: Any) -> Any:
        lines.append(dict(event))
        raise structlog.DropEvent

    lines: list[dict[str, Any]] = []
    configured = structlog.get_config()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep], cache_logger_on_first_use=False)
    try:
        async with bench(tmp_path) as b:
            b.refuse("POST", 500, times=1)
            b.writer.submit([b.create()])
            await until(lambda: any(line["event"] == "request failed" for line in lines))
    finally:
        structlog.configure(**configured)
    failed = next(line for line in lines if line["event"] == "request failed")
    assert (failed["job"], failed["attempt"], failed["pod"]) == ("ns/a", 0, A1)
