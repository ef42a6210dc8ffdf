"""The pods of a job as the API server lists them, and where its output keeps the log."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from gateway.logs.reading import Reader
from starlette.requests import ClientDisconnect
from unit.kube.fake_api import answer, serving, until

from rfuav_crds import contract
from rfuav_gateway.cluster.tasks import Tasks
from rfuav_gateway.logs import of_jobs
from rfuav_gateway.logs.logs import Logs
from rfuav_gateway.logs.of_jobs import JobSource
from rfuav_gateway.logs.source import Pod
from rfuav_gateway.routes.streams import Stream
from rfuav_gateway.tasks.words import PHRASES
from rfuav_operator.core.names import stem

UID = "uid-1"


def job(kind="TrainingJob", phase="Running", version=1, *, ran=True, **spec):
    return {
        "apiVersion": contract.API_VERSION,
        "kind": kind,
        "metadata": {"name": "drones", "namespace": "team-a", "uid": UID, "resourceVersion": str(version), "creationTimestamp": "2027-01-31T12:00:00Z"},
        "spec": {"output": {"uri": "s3://models/out/"}, **spec},
        "status": {"phase": phase, **({"startedAt": "2027-01-31T12:01:00Z"} if ran else {})},
    }  # fmt: skip


def pod(attempt=1, phase="Running", *, kind="TrainingJob", owner=UID, node="gpu-1", **labels):
    index = labels.get("shard", labels.get("rank"))
    name = f"{stem('drones', UID)}-{attempt}" + (f"-{index}" if index is not None else "")
    found = {contract.LABEL_KIND: kind, contract.LABEL_ATTEMPT: str(attempt), contract.LABEL_JOB_UID: UID}
    return {
        "metadata": {
            "name": name, "namespace": "team-a", "uid": f"pod-{name}", "resourceVersion": "5",
            "labels": found | {f"{contract.GROUP}/{key}": str(value) for key, value in labels.items()},
            "ownerReferences": [{"apiVersion": contract.API_VERSION, "kind": kind, "name": "drones", "uid": owner, "controller": True}],
        },
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": phase},
    }  # fmt: skip


class Cluster:
    """A job and its pods."""

    def __init__(self, connection, api):
        self.connection, self.tasks = connection, Tasks()
        self.pods, self.body, self.refusals, self.asked = [], job(), 0, []
        api.handle = self._serve

    async def _serve(self, request: web.Request, _body) -> web.StreamResponse:
        self.asked.append(request.path)
        if request.path.endswith("/pods"):
            assert request.query["labelSelector"] == f"{contract.LABEL_JOB_UID}={UID}"
            if self.refusals:
                self.refusals -= 1
                return answer(503, {"kind": "Status"})
            return answer(200, {"metadata": {"resourceVersion": "9"}, "items": self.pods})
        if request.path.endswith("jobs/drones") and self.body is not None:
            return answer(200, self.body)
        return answer(404, {"kind": "Status", "reason": "NotFound"})

    def source(self, body, language="en") -> JobSource:
        self.body = body
        kind = "training" if body["kind"] == "TrainingJob" else "inference"
        return JobSource(self.connection, self.tasks, self.tasks.take(kind, body), PHRASES[language])


@pytest.fixture
async def cluster(tmp_path, monkeypatch):
    monkeypatch.setattr(of_jobs, "AGAIN", 0.01)
    async with serving(tmp_path) as (api, connection):
        yield Cluster(connection, api)


async def test_pods_of_all_attempts_and_of_this_job_alone(cluster):
    cluster.pods = [pod(2, node=""), pod(1, "Failed"), pod(3, owner="uid-of-another")]
    source = cluster.source(job())
    await source.load()
    one, two = f"{stem('drones', UID)}-1", f"{stem('drones', UID)}-2"
    assert source.state().pods == (Pod(one, 1, finished=True), Pod(two, 2, started=False))
    assert source.state().end is None


async def test_shards_have_numbers(cluster):
    cluster.pods = [pod(kind="InferenceJob", shard=shard) for shard in (1, 0)]
    source = cluster.source(job("InferenceJob"))
    await source.load()
    assert [one.shard for one in source.state().pods] == [0, 1]


async def test_a_list_that_fails_is_tried_again(cluster):
    cluster.pods, cluster.refusals = [pod()], 3
    source = cluster.source(job())
    await source.load()
    assert len(source.state().pods) == 1


@pytest.mark.parametrize(
    ("body", "where", "files"),
    [
        (job(phase="Succeeded"), "s3://models/out/log.jsonl", [("s3://models/out/log.jsonl", None)]),
        (job("InferenceJob", "Failed"), "s3://models/out/log.jsonl", [("s3://models/out/log.jsonl", None)]),
        (
            job("InferenceJob", "Failed", shards=2),
            "s3://models/out/log-*.jsonl",
            [("s3://models/out/log-0.jsonl", 0), ("s3://models/out/log-1.jsonl", 1)],
        ),
        (job(phase="Cancelled", ran=False), "", []),
    ],
)
async def test_where_the_log_of_a_job_is_whose_pods_are_gone(cluster, body, where, files):
    source = cluster.source(body)
    await source.load()
    assert (source.where, list(source.kept)) == (where, files)


async def test_a_deleted_job_kept_its_log_nowhere(cluster):
    source = cluster.source(job(phase="Failed"))
    cluster.body = None
    await source.load()
    assert source.where == ""


async def test_a_change_of_the_job_lists_its_pods_again(cluster):
    source = cluster.source(job(phase="Queued"))
    await source.load()
    seen = source.state()
    change = asyncio.create_task(source.changed(seen))
    await until(lambda: cluster.asked)
    cluster.pods = [pod()]
    cluster.tasks.take("training", job(version=2))
    await asyncio.wait_for(change, 30)
    assert len(source.state().pods) == 1


async def test_each_reader_of_a_stream_is_told_its_end_in_their_language(cluster):
    """They share one stream, whoever came first; and it goes on when the job does."""
    running, over = job(phase="Running"), job(phase="Cancelled")
    over["metadata"]["resourceVersion"] = "99"
    async with AsyncExitStack() as stack:
        logs = Logs(cluster.connection)
        stack.push_async_callback(logs.close)
        readers = [
            Reader(await stack.enter_async_context(logs.follow(cluster.source(running, language))))
            for language in ("zh", "en")
        ]
        cluster.tasks.take("training", over)
        told = [(await reader.read())[-1].message for reader in readers]
    assert told == ["已取消", "Cancelled"]


async def test_a_client_that_leaves_before_the_first_byte_is_no_reader_any_more(cluster):
    async with AsyncExitStack() as stack:
        logs = Logs(cluster.connection)
        stack.push_async_callback(logs.close)
        following = logs.follow(cluster.source(job()))
        response = Stream(await following.__aenter__(), following)
        assert logs.readers == 1

        async def gone():
            return {"type": "http.disconnect"}

        async def send(_message):
            raise OSError("the client has left")

        with pytest.raises(ClientDisconnect):
            await response(
                {"type": "http", "asgi": {"spec_version": "2.4"}, "method": "GET", "headers": []}, gone, send
            )
        assert logs.readers == 0
