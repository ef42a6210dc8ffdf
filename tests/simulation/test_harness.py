"""The model itself: virtual time, the API server's rules, replays that are equal to the bit, and shrinking."""

import asyncio
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from simulation.api import Api, merged, parse
from simulation.connection import SimConnection
from simulation.play import Result, play, play_seed
from simulation.script import Action, Script, draw
from simulation.server import Server
from simulation.shrink import shrink
from simulation.test_regressions import SETUP
from simulation.truth import Truth
from simulation.virtual import NothingLeft, VirtualLoop, run

TESTS = Path(__file__).parents[1]


def test_time_jumps():
    async def main():
        loop = asyncio.get_running_loop()
        await asyncio.sleep(3600)
        async with asyncio.timeout(5):
            await asyncio.sleep(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        return loop.time()

    assert run(VirtualLoop(), main()) == 3606


def test_what_is_due_at_one_instant_runs_in_the_order_in_which_it_was_set():
    async def main():
        loop, ran = asyncio.get_running_loop(), []
        timers = [loop.call_at(5.0, ran.append, number) for number in range(50)]
        for timer in timers[::3]:
            timer.cancel()
        await asyncio.sleep(5)
        return ran

    assert run(VirtualLoop(), main()) == [number for number in range(50) if number % 3]


def test_waiting_for_nothing_is_an_error():
    with pytest.raises(NothingLeft):
        run(VirtualLoop(), asyncio.Event().wait())


@pytest.fixture
def api() -> Api:
    return Api(Server(lambda: 0.0, lambda: "2026-01-01T12:00:00Z"))


def job(api: Api):
    body = {"metadata": {"namespace": "n", "name": "a"}, "spec": {"x": 1}}
    return api.server.create("trainingjobs", body, "user")


JOB = parse("/apis/rfuav.io/v1alpha1/namespaces/n/trainingjobs/a/status")
PODS = "/api/v1/namespaces/n/pods"


def test_a_status_is_merged_under_its_lock(api):
    version = job(api)["metadata"]["resourceVersion"]
    lock = {"metadata": {"resourceVersion": version}}
    answer = api.handle("PATCH", JOB, lock | {"status": {"a": {"b": 1, "c": 2}}}, "op")
    assert answer.status == 200
    assert answer.body["metadata"]["generation"] == 1
    assert api.handle("PATCH", JOB, lock | {"status": {"a": None}}, "op").status == 409
    lock = {"metadata": {"resourceVersion": answer.body["metadata"]["resourceVersion"]}}
    again = api.handle("PATCH", JOB, lock | {"status": {"a": {"b": 1}}}, "op")
    assert again.body["metadata"]["resourceVersion"] == answer.body["metadata"]["resourceVersion"]
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": None}, "d": [1]}) == {"a": {"c": 2}, "d": [1]}


def test_pods_go_gracefully_only_when_they_are_bound(api):
    target = parse(PODS)
    pod = {"metadata": {"namespace": "n", "name": "p"}, "spec": {"terminationGracePeriodSeconds": 7, "containers": []}}
    assert api.handle("POST", target, pod, "op").status == 201
    assert api.handle("POST", target, pod, "op").reason == "AlreadyExists"
    one = parse(f"{PODS}/p")
    assert api.handle("DELETE", one, {"preconditions": {"uid": "another"}}, "op").status == 409
    api.server.write("pods", ("n", "p"), {"spec": {**pod["spec"], "nodeName": "x"}}, "scheduler")
    marked = api.handle("DELETE", one, {}, "op").body["metadata"]
    assert marked["deletionGracePeriodSeconds"] == 7
    api.server.write("pods", ("n", "p"), {"status": {"phase": "Failed"}}, "kubelet")
    assert api.handle("DELETE", one, {}, "op").status == 200
    assert api.handle("GET", one, None, "op").status == 404


def test_pages_are_of_one_version_until_it_is_too_old(api):
    for name in "abc":
        api.server.create("nodes", {"metadata": {"name": name}}, "x")
    status, body, version = api.page("nodes", {"limit": "2"}, bare=True)
    assert (status, version) == (200, api.server.version)
    assert body.count(b'"uid"') == 2
    api.server.remove("nodes", ("", "c"), "x")
    rest = {"limit": "2", "continue": f"{version}-2"}
    assert api.page("nodes", rest, bare=True)[1].count(b'"uid"') == 1
    api.server.compact("nodes")
    assert api.page("nodes", rest, bare=True)[0] == 410


def test_a_seed_is_one_history_to_the_bit():
    """Also in another process, whose sets and dicts of strings are in another order."""
    code = "from simulation.play import play_seed\nfor seed in range(8): print(play_seed(seed).digest)"
    order = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"  # without it, this process has drawn its own
    environment = {**os.environ, "PYTHONHASHSEED": order, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert found == "".join(f"{play_seed(seed).digest}\n" for seed in range(8))


def test_a_script_is_kept_as_json():
    script = draw(3)
    assert play(Script.from_json(script.to_json())).digest == play(script).digest


def test_a_failing_script_is_shrunk_to_what_it_needs():
    script = next(s for s in map(draw, range(50)) if len([a for a in s.actions if a.do == "cancel"]) > 1)

    def player(candidate: Script) -> Result:
        done = [action.do for action in candidate.actions]
        broken = "cancel" in done and "create" in done[: done.index("cancel")]
        return Result(script.seed, "rule: broken" * broken, 0, 0, 0, 0.0, "")

    assert [action.do for action in shrink(script, player=player).actions] == ["create", "cancel"]


def test_a_pod_that_just_left_its_job_may_be_deleted_by_who_cannot_know_yet_and_by_nobody_else(monkeypatch):
    """Its label is taken off while the watch of pods is slow, and its node goes away before the operator hears of it."""
    slow = unlabelled_before_the_node_goes(
        Action(0, "watch_slow", {"resource": "pods", "later": 13.0, "seconds": 20.0})
    )
    assert play(slow).violation == ""
    monkeypatch.setattr(Truth, "has_just_left", lambda _truth, _pod: False)
    assert play(slow).violation.startswith("stopped_for_a_reason: pod j-")
    monkeypatch.undo()
    monkeypatch.setattr(SimConnection, "knowledge", lambda _connection: defaultdict(lambda: 10**9))
    assert play(slow).violation.startswith("stopped_for_a_reason: pod j-")


def unlabelled_before_the_node_goes(*before: Action) -> Script:
    create = {"kind": "InferenceJob", "job": "j", "gpus": 0, "fates": ["image"], "work": 75.0, "grace": 20}
    actions = (
        *before,
        Action(0, "create", create),
        Action(1.0, "unlabelled", {"job": "j", "labels": ["kind"]}),
        Action(2.0, "node_deleted", {"node": "n0", "seconds": 11.0, "away": 45.0}),
    )
    return Script(1, SETUP, actions)


def test_a_pod_on_a_node_whose_labels_contradict_its_slots_is_not_judged():
    """The labels say one GPU of two slots, the device plugin offers eight: how many GPUs there are is not known."""
    pool = SETUP["pool"] | {"scaleUp": {"maxJobs": 2, "timeoutSeconds": 60}}
    setup = SETUP | {"nodes": [[1, 2, 8000, "a"]], "pool": pool}
    training = {"kind": "TrainingJob", "job": "t", "gpus": 2, "fates": [], "work": 30.0}
    cpu = {"kind": "InferenceJob", "job": "i", "gpus": 0, "fates": [], "work": 60.0}
    actions = (
        Action(5.0, "node_resized", {"node": "n0", "slots": 8}),
        Action(10.0, "create", training),
        Action(60.0, "create", cpu),
    )
    said = {play(Script(seed, setup, actions)).violation for seed in range(8)}
    assert said == {""}
