"""The operator killed at any moment, stopped, and failed over: nothing is lost, nothing doubled (the observer counts)."""

import random
import time
import urllib.request

import pytest
from contract.operator.conftest import LEASE_SECONDS

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("audited")]


def ready(operator) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{operator.health}/readyz", timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


def holder(world) -> str:
    from kubernetes import client

    leases = client.CoordinationV1Api(world.core.api_client)
    return leases.read_namespaced_lease("rfuav-operator", "rfuav-operator-test").spec.holder_identity or ""


def test_killed_at_random_moments(world):
    random.seed(7)
    names = [f"t{i}" for i in range(4)]
    for name in names:
        world.submit(name, run="0.5s")
    world.submit("i", "InferenceJob", shards=6, parallelism=3, run="0.5s")
    for _ in range(3):
        time.sleep(random.uniform(0.1, 1.2))
        world.operator.kill()
        world.operator.start()
        world.wait(lambda: ready(world.operator), 30)
    for name in names:
        assert world.phase(name, "Succeeded", seconds=40)["attempt"] == 1
    status = world.phase("i", "Succeeded", "InferenceJob", seconds=40)
    assert status["shards"]["completed"] == "0-5"
    assert len(world.pods()) == 10


def test_what_happened_while_it_was_away(world):
    world.submit("ends", run="1s")
    world.submit("deleted", run=None)
    world.phase("ends", "Running")
    world.phase("deleted", "Running")
    world.operator.kill()
    world.delete("deleted")
    world.submit("new", run="0.2s")
    world.wait(lambda: world.pods("ends")[0].status.phase == "Succeeded")
    world.operator.start()
    world.phase("ends", "Succeeded", seconds=30)
    world.phase("new", "Succeeded", seconds=30)


def test_another_takes_over(world, operator_settings):
    second = operator_settings("second")
    second.start()
    try:
        world.wait(lambda: ready(second), 30)
        world.submit("before", run="0.2s")
        world.phase("before", "Succeeded")
        assert holder(world) == "first"
        began = time.monotonic()
        assert world.operator.stop() == 0
        world.submit("released", run="0.2s")
        world.phase("released", "Succeeded", seconds=30)
        assert time.monotonic() - began < LEASE_SECONDS  # released, not run out
        assert holder(world) == "second"
        world.operator.start()
        world.wait(lambda: ready(world.operator), 30)
        second.kill()
        world.submit("crashed", run="0.2s")
        world.phase("crashed", "Succeeded", seconds=LEASE_SECONDS + 20)
        assert holder(world) == "first"
    finally:
        if second.running:
            second.kill()
