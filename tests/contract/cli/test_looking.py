"""queue, why and top, as a user who has the role `edit` in one namespace."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from contract.cli.conftest import Jobs, Run, read
from kubernetes import client

from rfuav_crds.contract import GROUP, VERSION

pytestmark = pytest.mark.contract

WORDS = "needs 1 GPU; pool {} has 0 of 2 training slots free on 1 node"


def wait_in(jobs: Jobs, pool: str, name: str, position: int, **spec: object) -> None:
    status = {"phase": "Queued", "reason": "WaitingForCapacity", "message": WORDS.format(pool)}
    place = {"position": position, "of": 9, "estimatedStart": "2020-01-01T00:00:00Z"}
    jobs.create(name, pool=pool, status=status | {"queue": place, "queuedAt": "2026-01-01T00:00:00Z"}, **spec)


def run_in(jobs: Jobs, pool: str, name: str) -> None:
    held = [{"pod": f"{name}-1", "node": "gpu-1", "gpus": 2}]
    jobs.create(name, pool=pool, status={"phase": "Running", "assignments": held, "progress": {"percent": 40}})


@pytest.mark.usefixtures("pools_for_everyone")
def test_the_queue_has_places_and_reasons_in_columns(rfuav: Run, jobs: Jobs, pool: str) -> None:
    wait_in(jobs, pool, "second", 5)
    wait_in(jobs, pool, "first", 2)
    run_in(jobs, pool, "running")
    done = rfuav("queue")
    head, *lines = done.out.splitlines()
    assert head.split() == ["POOL", "PLACE", "JOB", "NAMESPACE", "PRIORITY", "GPUS", "WAITS", "STARTS", "REASON", "WHY"]
    assert [line.split()[:3] for line in lines] == [[pool, "2", "tj/first"], [pool, "5", "tj/second"]]
    assert lines[0].endswith(WORDS.format(pool))
    assert rfuav("queue", "--no-headers", "-o", "name").out == "tj/first\ntj/second\n"
    (found,) = read(rfuav("queue", "-o", "json").out)["pools"]
    assert (found["of"]["gpus"], found["of"]["free"], found["of"]["waiting"]) == (2, 6, 7)
    assert found["jobs"][0]["message"] == WORDS.format(pool)
    assert "position: 2" in rfuav("queue", "-o", "yaml").out


def test_an_empty_queue_says_so_on_stderr(rfuav: Run, namespace: str) -> None:
    assert rfuav("queue") == (0, "", f"No job waits in namespace {namespace}.\n")


def test_what_the_user_may_not_read_is_left_out_with_a_word(rfuav: Run, jobs: Jobs, pool: str) -> None:
    run_in(jobs, pool, "running")
    wait_in(jobs, pool, "first", 2)
    done = rfuav("top")
    assert "tj/running" in done.out
    assert done.err == "Left out: GPUPools: you may not read them in this cluster\n"
    assert "tj/first" in rfuav("queue").out
    jobs.create("new")
    lines = [line for line in rfuav("why", "new").out.splitlines() if line.endswith("you may not read pools")]
    assert [line.split()[0] for line in lines] == ["?"]


@pytest.mark.usefixtures("pools_for_everyone")
def test_top_shows_pools_teams_and_who_holds_what(
    rfuav: Run, jobs: Jobs, pool: str, kube: client.ApiClient, namespace: str
) -> None:
    run_in(jobs, pool, "running")
    quota = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "GPUQuota", "metadata": {"name": "default"}}
    quota["spec"] = {"pools": [{"name": pool, "gpus": {"nominal": 1, "borrowingLimit": 3}}]}
    api = client.CustomObjectsApi(kube)
    api.create_namespaced_custom_object(GROUP, VERSION, namespace, "gpuquotas", quota)
    used = {"pools": [{"name": pool, "used": 2, "borrowed": 1, "admitted": {"training": 1}}]}
    api.patch_namespaced_custom_object_status(GROUP, VERSION, namespace, "gpuquotas", "default", {"status": used})
    done = rfuav("top")
    assert done.err == ""
    found = [line.split() for line in done.out.splitlines()]
    assert [pool, "yes", "2", "8", "6", "2", "0", "0", "2", "7"] in found
    assert [namespace, pool, "2", "1", "4", "1", "1", "0", "0"] in found
    assert ["tj/running", namespace, pool, "2", "Running"] == found[-1][:5]
    shown = read(rfuav("top", "-o", "json").out)
    assert shown["teams"][0]["own"] == 1
    assert "tj/" not in json.dumps(shown["pools"])


@pytest.mark.usefixtures("pools_for_everyone")
def test_why_is_a_checklist(rfuav: Run, jobs: Jobs, pool: str) -> None:
    wait_in(jobs, pool, "first", 2)
    lines = rfuav("why", "first").out.splitlines()
    assert lines[0].split() == ["OK", "WHAT", "DETAIL"]
    assert f"pool {pool} admits jobs" in lines[2]
    no = [line for line in lines if line.startswith("no")]
    assert len(no) == 2
    assert WORDS.format(pool) in no[0]
    assert "place 2 of 9, is about to start" in no[1]
    found = read(rfuav("why", "tj/first", "-o", "json").out)
    assert (found["phase"], [s["ok"] for s in found["steps"]].count(False)) == ("Queued", 2)


def test_why_of_a_failed_job_says_what_to_do(rfuav: Run, jobs: Jobs) -> None:
    failure = {"attempt": 1, "pod": "a-1", "reason": "OutOfMemory", "exitCode": 137, "message": "killed"}
    failure["finishedAt"] = "2026-01-01T00:00:00Z"
    jobs.create(
        "broken", status={"phase": "Failed", "reason": "OutOfMemory", "message": "twice", "failures": [failure]}
    )
    out = rfuav("why", "broken").out
    assert "attempt 1" in out
    assert "OutOfMemory (exit code 137): killed. To do: raise spec.resources.memory" in out


def test_everything_of_other_namespaces_is_refused_in_a_sentence(rfuav: Run) -> None:
    done = rfuav("queue", "-A")
    assert done.code == 3
    assert done.err == (
        "error: you may not read trainingjobs in the whole cluster: leave -A out, or name a namespace with -n\n"
    )
    assert rfuav("why", "first", "-n", "kube-system").code == 3
    assert rfuav("top", "-A").code == 3


def test_a_wrong_name_is_answered_with_near_ones(rfuav: Run, jobs: Jobs, namespace: str) -> None:
    jobs.create("drones-resnet18")
    jobs.create("both")
    jobs.create("both", "InferenceJob")
    done = rfuav("why", "drones-resnet8")
    assert (done.code, done.err) == (
        3,
        f"error: there is no job drones-resnet8 in namespace {namespace}: did you mean tj/drones-resnet18?\n",
    )
    assert rfuav("why", "ij/drones-resnet18").code == 3
    assert "write tj/both or ij/both" in rfuav("why", "both").err
    assert rfuav("why", "ij/both").code == 0


def test_no_cluster_and_no_credentials_are_said_in_a_sentence(rfuav: Run, edit: Path, tmp_path: Path) -> None:
    done = rfuav("queue", kubeconfig=tmp_path / "missing")
    assert done.code == 4
    assert "missing" in done.err
    text = edit.read_text()
    away = tmp_path / "away"
    away.write_text(
        "\n".join("    server: https://127.0.0.1:9" if "server:" in one else one for one in text.split("\n"))
    )
    done = rfuav("queue", kubeconfig=away)
    assert done.code == 4
    assert "kubectl cannot reach the cluster" in done.err
    assert "connection refused" in done.err
    done = rfuav("queue", "--context=nowhere")
    assert done.code == 4
    assert 'context "nowhere" does not exist' in done.err
    expired = tmp_path / "expired"
    expired.write_text(_with_token(text))
    done = rfuav("queue", kubeconfig=expired)
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "log in again" in done.err


def _with_token(text: str) -> str:
    import yaml

    config = yaml.safe_load(text)
    config["users"][0]["user"] = {"token": "expired"}
    return yaml.safe_dump(config)


def test_who_may_only_look_changes_nothing(rfuav: Run, user: Callable[..., Path], jobs: Jobs, namespace: str) -> None:
    jobs.create("first")
    viewer = user("view")
    assert rfuav("why", "first", kubeconfig=viewer).code == 0
    done = rfuav("stop", "first", kubeconfig=viewer)
    assert done.code == 3
    assert done.err.startswith(f"error: you may not change trainingjobs in namespace {namespace}")
