"""What the gateway holds of the API server, filled by its lists and watches."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from unit.kube.fake_api import answer, serving, until

from rfuav_gateway.cluster.tasks import Tasks
from rfuav_gateway.cluster.whole import Packed, Whole
from rfuav_kube.connection import Connection


def job(kind: str, name: str, version: int) -> dict[str, Any]:
    return {
        "apiVersion": "rfuav.io/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "uid": f"uid-{kind}-{name}",
            "resourceVersion": str(version),
            "creationTimestamp": "2026-01-31T12:00:00Z",
        },
        "spec": {},
    }


@asynccontextmanager
async def listing(folder: Path, lists: dict[str, list[Any]], version: int) -> AsyncIterator[Connection]:
    """A server with these lists, whose watches say nothing."""

    async def serve(request: web.Request, _body: Any) -> web.StreamResponse:
        plural = request.path.rpartition("/")[2]
        if "watch" in request.query:
            response = web.StreamResponse()
            await response.prepare(request)
            await asyncio.Event().wait()
        return answer(200, {"metadata": {"resourceVersion": str(version)}, "items": lists.get(plural, [])})

    async with serving(folder) as (api, connection):
        api.handle = serve
        yield connection


def test_the_list_of_one_kind_drops_nothing_of_the_other(tmp_path: Path):
    async def run() -> None:
        lists = {
            "trainingjobs": [job("TrainingJob", f"t{n}", 10 + n) for n in range(3)],
            "inferencejobs": [job("InferenceJob", f"i{n}", 20 + n) for n in range(2)],
        }
        async with listing(tmp_path, lists, 100) as connection:
            tasks = Tasks()
            reflectors = tasks.reflectors(connection)
            following = [asyncio.create_task(one.run()) for one in reflectors]
            await until(lambda: all(one.synced.is_set() for one in reflectors))
            assert tasks.count("team-a", "training") == 3
            assert tasks.count("team-a", "inference") == 2
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)

    asyncio.run(run())


def test_the_cluster_has_no_jobs_that_ended_and_specs_in_little_memory(tmp_path: Path):
    async def run() -> None:
        running, ended = job("TrainingJob", "runs", 10), job("TrainingJob", "ended", 11)
        running["spec"] = {"pool": "p", "output": {"uri": "pvc://d/x"}, "dataset": {"imageSize": 64}}
        running["status"], ended["status"] = {"phase": "Running"}, {"phase": "Succeeded"}
        async with listing(tmp_path, {"trainingjobs": [running, ended]}, 100) as connection:
            whole = Whole()
            following = [asyncio.create_task(one.run()) for one in whole.reflectors(connection)]
            await until(lambda: whole.synced)
            (held,) = whole.copy().jobs.values()
            assert (held.name, held.spec.pool) == ("runs", "p")
            assert held.raw_spec == running["spec"]
            assert dict(held.raw_spec) == running["spec"]
            assert isinstance(held.raw_spec, Packed)
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)

    asyncio.run(run())
