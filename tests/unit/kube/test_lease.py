"""A Lease of any content is taken when its time is over, and not before."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from unit.kube.fake_api import answer, serving

from rfuav_kube.lease import LONGEST_NAME, Lease, Taken

NOTE = "example.com/waits"

GARBAGE: dict[str, Any] = {
    "no spec": {"spec": None},
    "a spec that is a text": {"spec": "mine"},
    "a holder of 10 kB": {"spec": {"holderIdentity": "x" * 10_000, "leaseDurationSeconds": 3}},
    "a holder that is a number": {"spec": {"holderIdentity": 7, "leaseDurationSeconds": 3}},
    "a duration that is a text": {"spec": {"holderIdentity": "b", "leaseDurationSeconds": "long"}},
    "a duration that is a truth": {"spec": {"holderIdentity": "b", "leaseDurationSeconds": True}},
    "a duration below nothing": {"spec": {"holderIdentity": "b", "leaseDurationSeconds": -5}},
    "a time that is none": {"spec": {"holderIdentity": "a", "renewTime": "yesterday", "leaseDurationSeconds": 3}},
    "the last of all times": {"spec": {"holderIdentity": "a", "renewTime": "9999-12-31T23:59:59.999999Z"}},
    "the first of all times": {"spec": {"holderIdentity": "b", "renewTime": "0001-01-01T00:00:00Z"}},
    "as many transitions as there can be": {"spec": {"holderIdentity": "b", "leaseTransitions": 2**31 - 1}},
    "transitions that are a text": {"spec": {"holderIdentity": "b", "leaseTransitions": "many"}},
    "annotations that are a list": {"metadata": {"annotations": ["a"]}, "spec": {"holderIdentity": "b"}},
    "a rival of 10 kB in the future": {
        "metadata": {"annotations": {NOTE: "x" * 10_000 + " 9999-12-31T23:59:59Z"}},
        "spec": {"holderIdentity": "b"},
    },
}


@pytest.mark.parametrize("shared", [False, True])
async def test_a_lease_of_any_content_is_taken_when_its_time_is_over_and_not_before(tmp_path: Path, *, shared: bool):
    async with serving(tmp_path) as (api, connection):
        held: dict[str, Any] = {}

        async def serve(request: web.Request, body: Any) -> web.StreamResponse:
            if request.method == "PUT":
                if not 0 <= body["spec"].get("leaseTransitions", 0) < 2**31:
                    return answer(400, {"message": "cannot be read"})
                held[request.path] = body
            return answer(200, held[request.path])

        api.handle = serve

        async def taken(name: str, lease: Any) -> None:
            one = Lease(
                connection,
                "ns",
                name.replace(" ", "-"),
                me="a",
                seconds=1,
                most_seconds=1800,
                note=NOTE,
                shared=shared,
            )
            metadata = {"name": "l", "namespace": "ns", "resourceVersion": "1", **lease.get("metadata", {})}
            held[one._path] = {"kind": "Lease", **lease, "metadata": metadata}
            holder = (lease["spec"] or {}).get("holderIdentity") if lease["spec"] != "mine" else None
            if holder and not (shared and holder == "a"):
                assert await one.take(timeout=5) is Taken.BY_ANOTHER, name
            assert len(one.held_by_another()) <= LONGEST_NAME
            assert len(one.stands_by()) <= LONGEST_NAME
            for _ in range(50):
                if await one.take(timeout=5) is Taken.YES:
                    break
                await asyncio.sleep(0.1)
            assert held[one._path]["spec"]["holderIdentity"] == "a", name
            assert one.stands_by() == ""

        await asyncio.gather(*(taken(name, lease) for name, lease in GARBAGE.items()))
