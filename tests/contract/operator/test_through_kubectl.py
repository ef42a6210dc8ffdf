"""A job's life through `kubectl rfuav` alone, with the operator running, by a user with the role `edit` in one namespace."""

import pytest
from contract.cli.conftest import (  # noqa: F401  fixtures
    Run,
    chart_roles,
    edit,
    kubectl_path,
    pools_for_everyone,
    read,
    rfuav,
    roles,
    user,
)

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("audited", "pools_for_everyone")]

DATA = ("--data", "s3://captures/train", "--to")


def test_a_queue_fills_is_explained_and_empties(world, rfuav: Run) -> None:  # noqa: F811
    pool = ("--pool", world.namespace)

    def submit(name: str, *more: str) -> None:
        done = rfuav("submit", "train", name, *DATA, f"s3://models/{name}", *pool, *more)
        assert (done.code, done.out) == (0, f"trainingjob.rfuav.io/{name} created\n")

    for name in ("one", "two"):  # a training for each of the two GPUs; their pods run until they are deleted
        submit(name)
        assert rfuav("wait", name, "--for=running", "--timeout=60s").code == 0
    submit("three")
    submit("huge", "--memory", "40Ti")
    world.reason("three", "WaitingForCapacity")
    world.reason("huge", "ExceedsMaxQuota")

    def lines() -> list[list[str]]:
        return [line.split() for line in rfuav("queue", "--no-headers").out.splitlines()]

    world.wait(lambda: [line[:2] for line in lines()] == [[world.namespace, "1"], [world.namespace, "2"]], 60)
    assert {line[2] for line in lines()} == {"tj/three", "tj/huge"}
    assert "has 0 of 2 training slots free on 1 node" in rfuav("queue").out
    steps = {step["what"]: step for step in read(rfuav("why", "three", "-o", "json").out)["steps"]}
    room = steps[f"pool {world.namespace} has room for 1 GPU slot"]
    assert room["ok"] is False
    assert room["detail"].endswith("To do: wait, ask for less, or choose another pool")
    assert steps[f"pool {world.namespace} admits jobs"]["ok"] is True
    assert steps["it is its turn"]["detail"].startswith("place ")
    never = {step["what"]: step for step in read(rfuav("why", "huge", "-o", "json").out)["steps"]}
    assert "larger than any empty node" in never["a node can take it, once it is free"]["detail"]
    found = read(rfuav("top", "-o", "json").out)
    (of_pool,) = [one for one in found["pools"] if one["name"] == world.namespace]
    assert (of_pool["gpus"], of_pool["slots"], of_pool["held"]["training"]) == (2, 8, 2)
    assert {job["job"]: job["nodes"] for job in found["jobs"]} == {"tj/one": world.nodes, "tj/two": world.nodes}
    assert "2 GPU" not in rfuav("why", "one").out
    assert f"1 GPU slot on {world.nodes[0]}" in rfuav("why", "one").out
    assert rfuav("suspend", "one").code == 0
    assert rfuav("wait", "one", "--for=suspended", "--timeout=60s").code == 0
    assert "To do: resume it" in rfuav("why", "one").out
    assert rfuav("wait", "three", "--for=running", "--timeout=60s").code == 0  # in the room of the suspended one
    assert rfuav("resume", "one").code == 0
    world.reason("one", "WaitingForCapacity")
    done = rfuav("stop", "two", "three", "one", "huge")
    assert done.out.count(" stopped\n") == 4
    assert rfuav("wait", "two", "--for=ended", "--timeout=60s").code == 0
    assert rfuav("wait", "two").code == 1
