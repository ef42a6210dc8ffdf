"""Two releases of the operator on one cluster: one serves it, the other says so and stands by."""

import asyncio
import time
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web
from unit.kube.fake_api import FakeApi, answer, serving, until

from rfuav_operator.settings import Leader as Limits
from rfuav_operator.shell.leader import STANDS_BY, Leader

LEASES = "/apis/coordination.k8s.io/v1/namespaces"


class Server:
    """Leases with resourceVersions, by namespace and name."""

    def __init__(self, api: FakeApi) -> None:
        self.leases: dict[tuple[str, str], Any] = {}
        self.forbidden = ""  # namespace
        api.handle = self.serve

    async def serve(self, request: web.Request, body: Any) -> web.StreamResponse:
        namespace, _, name = (*request.path.removeprefix(f"{LEASES}/").split("/"), "")[:3]
        key = (namespace, name or body["metadata"]["name"])
        held = self.leases.get(key)
        if namespace == self.forbidden:
            return answer(403, {"message": "leases is forbidden"})
        if request.method == "GET":
            return answer(200, held) if held else answer(404, {})
        if request.method == "POST":
            if held:
                return answer(409, {"reason": "AlreadyExists"})
        elif body["metadata"]["resourceVersion"] != held["metadata"]["resourceVersion"]:
            return answer(409, {"reason": "Conflict"})
        version = int(held["metadata"]["resourceVersion"]) + 1 if held else 1
        self.leases[key] = {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}}
        return answer(200, self.leases[key])


def limits(identity: str) -> Limits:
    return Limits(lease_seconds=3, identity=identity)


async def test_the_later_release_says_so_and_takes_over_when_the_first_is_gone(tmp_path: Path):
    async with serving(tmp_path) as (api, connection):
        server = Server(api)
        told: list[str] = []
        first = Leader(connection, "a", limits("pod"), on_renewed=lambda: told.append(first.rival))
        second, sibling = (Leader(connection, "b", limits(name)) for name in ("pod", "other"))
        await first.acquire()
        holding = asyncio.create_task(first.hold())
        with structlog.testing.capture_logs() as lines:
            waiting = [asyncio.create_task(leader.acquire()) for leader in (second, sibling)]
            await asyncio.sleep(4)  # longer than a lease
        assert first.leading
        assert not second.leading
        assert not sibling.leading
        assert first.blocked == ""
        for leader in (second, sibling):  # not one replica of it is ready
            assert leader.blocked == (
                "another release of the operator, a/rfuav-operator, serves this cluster; this one, b/rfuav-operator, is on standby"
            )
        assert [line["event"] for line in lines if line["log_level"] == "warning"] == [second.blocked] * 2
        assert told[-1] == "b/rfuav-operator"
        holding.cancel()
        await first.release()  # uninstalled
        began = time.monotonic()
        done, _ = await asyncio.wait(waiting, timeout=15, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        assert time.monotonic() - began > 5  # its lease, three times as long, has run out
        assert [leader.leading for leader in (second, sibling)].count(True) == 1
        leading = second if second.leading else sibling
        assert (leading.blocked, leading.rival) == ("", "")
        assert server.leases["kube-system", "rfuav-operator"]["spec"]["holderIdentity"] == "b/rfuav-operator"
        for task in waiting:
            task.cancel()


async def test_replicas_of_one_release_succeed_each_other_at_once(tmp_path: Path):
    async with serving(tmp_path) as (api, connection):
        server = Server(api)
        first, second = (Leader(connection, "a", limits(name)) for name in ("one", "two"))
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(0.5)
        assert (first.blocked, second.blocked) == ("", "")
        await first.release()
        await asyncio.wait_for(waiting, 1)
        shared = server.leases["kube-system", "rfuav-operator"]
        assert shared["spec"]["holderIdentity"] == "a/rfuav-operator"
        assert STANDS_BY not in (shared["metadata"].get("annotations") or {})


async def test_without_the_right_to_the_shared_lease_nothing_is_decided_and_the_reason_is_logged(tmp_path: Path):
    async with serving(tmp_path) as (api, connection):
        server = Server(api)
        server.forbidden = "kube-system"
        leader = Leader(connection, "a", limits("one"))
        waiting = asyncio.create_task(leader.acquire())
        await until(lambda: leader.blocked)
        assert leader.blocked == "the Lease kube-system/rfuav-operator is refused: 403 leases is forbidden"
        assert not leader.leading
        server.forbidden = ""
        await asyncio.wait_for(waiting, 2)
        assert leader.blocked == ""
