"""Never two leaders: leases taken, renewed, lost and released, against a server with optimistic locks."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from unit.kube.fake_api import FakeApi, answer, serving, until

from rfuav_operator.settings import Leader as Limits
from rfuav_operator.shell.leader import SAFE, Leader, LeaseLost

SOON = 60.0  # seconds, on however slow a machine


class Server:
    """One lease with a resourceVersion."""

    def __init__(self, api: FakeApi) -> None:
        self.lease: Any = None
        self.down = False
        self.away = False
        self.raced = 0
        self.patched: list[Any] = []
        self.labels: dict[str, dict[str, str]] = {}  # by pod
        self.busy = 0  # patches of pods that are answered 429
        api.handle = self.serve

    def label(self, pod: str, method: str, body: Any) -> web.Response:
        labels = self.labels.setdefault(pod, {})
        if method == "GET":
            return answer(200, {"metadata": {"labels": labels}})
        if self.busy:
            self.busy -= 1
            return answer(429, {"message": "too many requests"})
        wanted = body["metadata"]["labels"]["rfuav.io/leader"]
        self.patched.append(wanted)
        if wanted is None:
            labels.pop("rfuav.io/leader", None)
        else:
            labels["rfuav.io/leader"] = wanted
        return answer(200, {"metadata": {"labels": labels}})

    async def serve(self, request: web.Request, body: Any) -> web.StreamResponse:
        if self.down:
            return answer(500, {})
        if self.away and request.transport is not None:
            request.transport.close()
        if self.raced and request.method == "PUT":
            self.raced -= 1
            self.lease["metadata"]["resourceVersion"] = str(int(self.lease["metadata"]["resourceVersion"]) + 1)
        if "/pods/" in request.path:
            return self.label(request.path.rpartition("/")[2], request.method, body)
        if request.method == "GET":
            return answer(200, self.lease) if self.lease else answer(404, {})
        if request.method == "POST":
            if self.lease:
                return answer(409, {"reason": "AlreadyExists"})
        elif body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            return answer(409, {"reason": "Conflict"})
        version = int(self.lease["metadata"]["resourceVersion"]) + 1 if self.lease else 1
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}}
        return answer(200, self.lease)

    @property
    def holder(self) -> str:
        return str(self.lease["spec"]["holderIdentity"])


def leases(api: FakeApi) -> list[str]:
    """The requests about leases."""
    return [method for method, path, _ in api.seen if "/leases" in path]


def limits(identity: str, seconds: int = 3) -> Limits:
    return Limits(lease_seconds=seconds, identity=identity, cluster_namespace="")


async def test_the_first_leads_and_the_second_waits(tmp_path: Path):
    async with serving(tmp_path) as (api, connection):
        server = Server(api)
        first, second = (Leader(connection, "ns", limits(i), pod=i) for i in ("a", "b"))
        await first.acquire()
        assert 0 < first.left() <= 3 * SAFE
        waiting = asyncio.create_task(second.acquire())
        holding = asyncio.create_task(first.hold())
        await asyncio.sleep(1.5)
        assert first.leading
        assert not second.leading
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        await first.release()
        assert not first.leading
        await asyncio.wait_for(waiting, SOON)
        assert server.holder == "b"
        assert server.lease["spec"]["leaseTransitions"] == 1
        assert server.patched == ["true", None]


@pytest.mark.parametrize("how", ["the first try is answered 429", "somebody takes it away"])
async def test_the_label_that_brings_reports_is_put_back_with_the_next_renewal(tmp_path: Path, how: str):
    async with serving(tmp_path) as (api, connection):
        server = Server(api)
        leader = Leader(connection, "ns", limits("a"), pod="a")
        await leader.acquire()
        server.busy = 1 if "429" in how else 0
        holding = asyncio.create_task(leader.hold())
        if not server.busy:
            await until(lambda: server.labels.get("a"))
            server.labels["a"].clear()
        await until(lambda: server.labels["a"] == {"rfuav.io/leader": "true"})
        assert leader.leading
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


async def test_a_former_leader_removes_its_label_when_the_api_server_answers_again(tmp_path: Path):
    async with serving(tmp_path) as (api, connection):
        server = Server(api)
        await Leader(connection, "ns", limits("b"), pod="b").acquire()
        server.labels["a"] = {"rfuav.io/leader": "true"}
        server.busy = 2
        standing = asyncio.create_task(Leader(connection, "ns", limits("a"), pod="a").acquire())
        await until(lambda: server.labels["a"] == {})
        standing.cancel()
        await asyncio.gather(standing, return_exceptions=True)


async def test_neither_a_lease_nor_its_renewal_waits_for_the_pods_label(tmp_path: Path):
    async with serving(tmp_path) as (api, connection):
        server = Server(api)
        serve, go_on = server.serve, asyncio.Event()

        async def pods_are_silent(request: web.Request, body: Any) -> web.StreamResponse:
            if "/pods/" in request.path:
                await go_on.wait()
            return await serve(request, body)

        api.handle = pods_are_silent
        leader = Leader(connection, "ns", limits("a"), pod="a")
        await asyncio.wait_for(leader.acquire(), SOON)
        holding = asyncio.create_task(leader.hold())
        await until(lambda: leases(api).count("PUT") == 4)
        assert leader.leading
        assert not go_on.is_set()
        go_on.set()
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


async def test_a_dead_leader_is_succeeded_only_after_its_lease(tmp_path: Path):
    async with serving(tmp_path) as (api, connection):
        server = Server(api)
        first, second = (Leader(connection, "ns", limits(i)) for i in ("a", "b"))
        await first.acquire()  # and dies
        ended: list[float] = []

        async def watch_first() -> None:
            await until(lambda: not first.leading)
            ended.append(time.monotonic())

        watching = asyncio.create_task(watch_first())
        await asyncio.wait_for(second.acquire(), SOON)
        took = time.monotonic()
        await watching
        assert took > ended[0]  # never both
        assert server.holder == "b"


async def test_a_lease_that_somebody_deletes_is_not_taken_before_its_holder_leads_no_more(tmp_path: Path):
    async with serving(tmp_path) as (api, connection):
        server = Server(api)
        first, second = (Leader(connection, "ns", limits(i)) for i in ("a", "b"))
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await until(lambda: leases(api).count("GET") >= 2)
        began = first.left()
        server.lease = None
        await asyncio.wait_for(waiting, SOON)
        assert server.holder == "b"
        assert began > 0 > first.left()


async def test_a_process_that_gave_the_lease_back_may_have_it_at_once(tmp_path: Path):
    async with serving(tmp_path) as (api, connection):
        Server(api)
        leader = Leader(connection, "ns", limits("a"))
        await leader.acquire()
        await leader.release()
        api.seen.clear()
        await asyncio.wait_for(leader.acquire(), SOON)
        assert leases(api) == ["GET", "PUT"]  # with the first try


async def test_a_process_waits_for_the_lease_of_its_predecessor_of_the_same_name(tmp_path: Path):
    async with serving(tmp_path) as (api, connection):
        server = Server(api)
        before = Leader(connection, "ns", limits("a"))
        await before.acquire()
        await Leader(connection, "ns", limits("a")).acquire()
        assert before.left() < 0  # a request of the former process may have been under way until then
        server.lease["spec"]["renewTime"] = "2026-01-01T00:00:00.000000Z"
        api.seen.clear()
        await asyncio.wait_for(Leader(connection, "ns", limits("a")).acquire(), SOON)
        assert leases(api) == ["GET", "PUT"]  # it was away for long


@pytest.mark.parametrize("how", ["taken", "server down"])
async def test_a_lease_that_cannot_be_renewed_ends_the_leader(tmp_path: Path, how: str):
    async with serving(tmp_path) as (api, connection):
        server = Server(api)
        leader = Leader(connection, "ns", limits("a"))
        await leader.acquire()
        if how == "taken":
            server.lease["spec"]["holderIdentity"] = "b"
            server.lease["metadata"]["resourceVersion"] = "77"
        else:
            server.down = True
        api.seen.clear()
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(leader.hold(), SOON)
        assert not leader.leading
        if how == "taken":
            assert leases(api) == ["GET"]  # the first look tells


@pytest.mark.parametrize("how", ["away", "down"])
async def test_an_outage_of_a_third_of_the_lease_is_outlasted(tmp_path: Path, how: str):
    async with serving(tmp_path) as (api, connection):
        server = Server(api)
        leader = Leader(connection, "ns", limits("a"))
        await leader.acquire()
        holding = asyncio.create_task(leader.hold())
        for _ in range(2):
            await asyncio.sleep(0.6)  # just before the next renewal
            setattr(server, how, True)
            await asyncio.sleep(1)
            setattr(server, how, False)
            assert not holding.done()
        await asyncio.sleep(0.6)
        assert leader.left() > 0
        holding.cancel()


async def test_another_writer_of_the_lease_does_not_end_it(tmp_path: Path):
    async with serving(tmp_path) as (api, connection):
        server = Server(api)
        leader = Leader(connection, "ns", limits("a"))
        await leader.acquire()
        holding = asyncio.create_task(leader.hold())
        server.raced = 1
        await asyncio.sleep(2)
        assert not server.raced
        assert not holding.done()
        assert leader.leading
        holding.cancel()


async def test_a_former_leader_takes_part_again_when_its_requests_have_ended(tmp_path: Path):
    """What was sent with the lease may be carried out until others may take it: others wait as long, too."""
    async with serving(tmp_path) as (api, connection):
        server = Server(api)
        leader = Leader(connection, "ns", limits("a"))
        await leader.acquire()
        runs_out = time.monotonic() + leader.left() + 3 * (1 - SAFE)
        server.lease["spec"]["holderIdentity"] = "b"
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(leader.hold(), SOON)
        server.lease["spec"]["holderIdentity"] = ""
        await asyncio.wait_for(leader.acquire(), SOON)
        assert time.monotonic() >= runs_out
        assert leader.leading


@pytest.mark.parametrize("page", ["<html>please sign in</html>", "null", "[]", "7"])
async def test_an_answer_that_is_no_object_is_not_the_api_servers(tmp_path: Path, page: str):
    async with serving(tmp_path) as (api, connection):
        server = Server(api)

        async def portal(_request: web.Request, _body: Any) -> web.StreamResponse:
            return web.Response(status=200, text=page)

        api.handle = portal
        leader = Leader(connection, "ns", limits("a"), pod="a")
        waiting = asyncio.create_task(leader.acquire())
        await asyncio.sleep(0.3)
        assert not waiting.done()
        api.handle = server.serve
        await asyncio.wait_for(waiting, SOON)


async def test_only_the_own_lease_is_released(tmp_path: Path):
    async with serving(tmp_path) as (api, connection):
        server = Server(api)
        leader = Leader(connection, "ns", limits("a"))
        await leader.acquire()
        server.lease["spec"]["holderIdentity"] = "b"
        await leader.release()
        assert server.holder == "b"
