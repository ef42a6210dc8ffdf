"""The default pool is applied in place: made, changed, left alone, never deleted."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from pydantic import ValidationError
from unit.kube.fake_api import answer, serving

from rfuav_kube.requester import LeaseOver, Requester
from rfuav_operator.settings import Settings
from rfuav_operator.shell.writing import default_pool

SPEC = {"perGPU": [{"minMemory": 0, "training": 1, "inference": 2}]}


class Pool:
    """What the API server holds, and what it was asked."""

    def __init__(self, held=None, refusals=()):
        self.held = held
        self.refusals = list(refusals)
        self.asked = []

    async def handle(self, request, body):
        self.asked.append((request.method, dict(request.query)))
        if self.refusals:
            return answer(self.refusals.pop(0), {"message": "no", "reason": "No"})
        if request.method == "GET":
            return answer(200, self.held) if self.held else answer(404, {"message": "not found"})
        assert request.method == "PATCH"
        assert request.headers["Content-Type"] == default_pool.APPLY_PATCH
        self.held = {"metadata": body["metadata"], "spec": {**(self.held or {}).get("spec", {}), **body["spec"]}}
        return answer(200, self.held)

    @property
    def patches(self):
        return [query for method, query in self.asked if method == "PATCH"]


@asynccontextmanager
async def world(tmp_path, pool, lease_left=lambda: 60.0):
    async with serving(tmp_path) as (api, connection):
        api.handle = pool.handle
        yield Requester(connection, parallel=4, timeout_seconds=10, lease_left=lease_left, sent=lambda *_: None)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(default_pool, "RETRY", 0.01)


async def test_a_missing_pool_is_made_and_then_left_as_it_is(tmp_path):
    pool = Pool()
    async with world(tmp_path, pool) as requests:
        await default_pool.apply(requests, SPEC)
        assert pool.held["spec"] == SPEC
        assert pool.patches == [{"fieldManager": default_pool.MANAGER, "force": "true"}]
        pool.held["spec"]["stopPolicy"] = "Hold"  # an administrator's change
        await default_pool.apply(requests, SPEC)
        assert len(pool.patches) == 1


async def test_new_settings_are_applied_in_place(tmp_path):
    pool = Pool({"metadata": {"name": "default", "uid": "u"}, "spec": {"stopPolicy": "Hold"}})
    async with world(tmp_path, pool) as requests:
        await default_pool.apply(requests, SPEC)
        await default_pool.apply(requests, SPEC | {"placement": "Spread"})
    assert pool.held["spec"] == SPEC | {"placement": "Spread", "stopPolicy": "Hold"}
    assert {method for method, _ in pool.asked} == {"GET", "PATCH"}
    assert len(pool.patches) == 2


@pytest.mark.parametrize("refusals", [[500], [404, 503], [404, 409], [429, 429], [404, 404]])
async def test_what_can_heal_is_tried_again(tmp_path, refusals):
    pool = Pool(refusals=refusals)
    async with world(tmp_path, pool) as requests:
        await asyncio.wait_for(default_pool.apply(requests, SPEC), 5)
    assert pool.held["spec"] == SPEC


@pytest.mark.parametrize("status", [403, 422])
async def test_a_refusal_ends_the_tries_and_nothing_else(tmp_path, status):
    pool = Pool(refusals=[404, status])
    async with world(tmp_path, pool) as requests:
        await asyncio.wait_for(default_pool.apply(requests, SPEC), 5)
    assert pool.held is None


async def test_nothing_is_sent_after_the_lease(tmp_path):
    pool = Pool()
    async with world(tmp_path, pool, lambda: 0.0) as requests:
        with pytest.raises(LeaseOver):
            await default_pool.apply(requests, SPEC)
    assert pool.asked == []


async def test_no_request_outlives_the_lease(tmp_path):
    """The API server takes its time: the lease is over first, and nothing is tried again after it."""
    pool, left = Pool(), [0.3, 0.3]

    async def takes_its_time(request, body):
        if request.method == "PATCH":
            await asyncio.sleep(30)
        return await pool.handle(request, body)

    async with serving(tmp_path) as (api, connection):
        api.handle = takes_its_time
        requests = Requester(
            connection,
            parallel=4,
            timeout_seconds=0.5,
            lease_left=lambda: left.pop(0) if left else 0.0,
            sent=lambda *_: None,
        )
        with pytest.raises(LeaseOver):
            await asyncio.wait_for(default_pool.apply(requests, SPEC), 5)
    assert pool.patches == []


def test_settings_name_what_is_wrong_with_the_pool():
    assert Settings.model_validate({"defaultPool": {"spec": SPEC}}).default_pool.spec == SPEC
    with pytest.raises(ValidationError, match="placement"):
        Settings.model_validate({"defaultPool": {"spec": {"placement": "Anywhere"}}})
