"""submit, stop, suspend, resume, wait, preview and completion, as a user who has the role `edit` in one namespace."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from contract.cli.conftest import Jobs, Run, read
from kubernetes import client

from localcluster.gpus import Gpus
from localcluster.simulation import create_nodes

pytestmark = pytest.mark.contract

TRAIN = ("submit", "train", "first", "--data", "pvc://captures/train", "--to", "pvc://models/first")
INFER = (
    "submit",
    "infer",
    "flight",
    "--data",
    "pvc://captures/flight",
    "--to",
    "pvc://results/flight",
    "--from",
    "first",
)


def test_a_training_from_flags(rfuav: Run, jobs: Jobs, namespace: str) -> None:
    client_side = yaml.safe_load(rfuav(*TRAIN, "--epochs", "3", "--dry-run=client", "-o", "yaml").out)
    assert client_side["spec"]["training"] == {"epochs": 3}
    server_side = read(rfuav(*TRAIN, "--epochs", "3", "--dry-run=server", "-o", "json").out)
    assert server_side["spec"]["resources"]["gpus"] == 1  # the API server's default
    assert server_side["metadata"]["namespace"] == namespace
    assert rfuav("why", "first").code == 3  # nothing was created
    assert rfuav(*TRAIN, "--epochs", "3", "--gpus", "2").out == "trainingjob.rfuav.io/first created\n"
    spec = jobs.get("first")["spec"]
    assert (spec["training"]["epochs"], spec["resources"]["gpus"]) == (3, 2)
    again = rfuav(*TRAIN)
    assert (again.code, again.err) == (
        1,
        "error: there is a TrainingJob first already: choose another name, or delete it with `kubectl delete tj/first`\n",
    )
    assert rfuav(*INFER, "--shards", "4", "-o", "name").out == "inferencejob.rfuav.io/flight\n"
    assert jobs.get("flight", "InferenceJob")["spec"]["model"]["fromTrainingJob"] == "first"


def test_mistakes_in_flags_name_the_flag_before_anything_is_sent(rfuav: Run) -> None:
    done = rfuav(*TRAIN, "--epochs", "0")
    assert (done.code, done.err) == (2, "error: --epochs: input should be greater than or equal to 1 (found 0)\n")
    done = rfuav("submit", "train", "first", "--epochs", "many")
    assert done.code == 2
    assert "see `kubectl rfuav submit train --help`" in done.err
    assert rfuav("submit", "train").code == 2


def test_watching_a_submitted_job_tells_its_story_and_ends_as_it_does(rfuav: Run, jobs: Jobs) -> None:
    def live() -> None:
        while not jobs.exists("first"):
            time.sleep(0.1)
        time.sleep(0.5)
        jobs.status("first", phase="Queued", message="no room", queue={"position": 2, "of": 3})
        time.sleep(0.5)
        jobs.status("first", phase="Running", message="", progress={"percent": 50})
        time.sleep(0.5)
        jobs.status("first", phase="Failed", reason="OutOfMemory", message="killed twice")

    thread = threading.Thread(target=live)
    thread.start()
    done = rfuav(*TRAIN, "--watch")
    thread.join()
    assert done.code == 1
    assert done.out.splitlines()[-3:] == ["Queued: no room: place 2 of 3", "Running: 50 %", "Failed: killed twice"]
    assert done.err == "error: tj/first is Failed (OutOfMemory: killed twice): `kubectl rfuav why tj/first` has more\n"


def test_jobs_are_suspended_resumed_and_stopped(rfuav: Run, jobs: Jobs) -> None:
    jobs.create("first")
    jobs.create("done", status={"phase": "Succeeded"})
    assert rfuav("suspend", "first").out == "trainingjob.rfuav.io/first suspended\n"
    assert jobs.get("first")["spec"]["suspend"] is True
    assert rfuav("suspend", "tj/first").out == "trainingjob.rfuav.io/first unchanged\n"
    assert rfuav("resume", "first").out == "trainingjob.rfuav.io/first resumed\n"
    assert jobs.get("first")["spec"]["suspend"] is False
    done = rfuav("stop", "missing", "first", "done")
    assert done.out.splitlines() == [
        "trainingjob.rfuav.io/first stopped",
        "trainingjob.rfuav.io/done has ended (Succeeded)",
    ]
    assert done.code == 3
    assert done.err.startswith("error: there is no job missing")
    assert jobs.get("first")["spec"]["cancel"] is True


def test_waiting_ends_with_the_code_of_what_happened(rfuav: Run, jobs: Jobs) -> None:
    jobs.create("good", status={"phase": "Succeeded"})
    jobs.create("bad", status={"phase": "Failed", "reason": "Crashed", "message": "see the log"})
    jobs.create("slow", status={"phase": "Queued"})
    assert rfuav("wait", "good", "tj/good").out == "trainingjob.rfuav.io/good succeeded met\n" * 2
    done = rfuav("wait", "bad")
    assert done.code == 1
    assert "tj/bad is Failed (Crashed: see the log)" in done.err
    assert rfuav("wait", "bad", "--for=ended").code == 0
    done = rfuav("wait", "slow", "--timeout=1s")
    assert (done.code, done.err) == (124, "error: tj/slow is still Queued\n")
    assert rfuav("wait", "missing").code == 3
    assert rfuav("wait", "slow", "--for=done").code == 2
    later = threading.Timer(0.7, lambda: jobs.status("slow", phase="Running"))
    later.start()
    assert rfuav("wait", "slow", "--for=running", "--timeout=60s").code == 0
    later = threading.Timer(0.7, lambda: jobs.delete("slow"))
    later.start()
    assert rfuav("wait", "tj/slow", "--for=delete", "--timeout=60s").out == "trainingjob.rfuav.io/slow deleted\n"


def test_a_preview_needs_rights_or_a_gateway(rfuav: Run, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(rfuav(*TRAIN, "--dry-run=client", "-o", "yaml").out)
    done = rfuav("preview", "-f", str(path))
    assert done.code == 3
    assert "which you may not read: ask a gateway with --gateway URL" in done.err
    assert rfuav("preview", "-f", str(tmp_path / "none.yaml")).code == 2
    assert rfuav("preview", "-f", str(path), "--gateway", "http://127.0.0.1:9").code == 4
    assert rfuav("preview", "-f", str(path), "--gateway", "rfuav.example.org").code == 2


@pytest.mark.usefixtures("pools_for_everyone")
def test_a_preview_with_rights_to_read_nodes_and_pods(
    rfuav: Run, pool: str, kube: client.ApiClient, kubeconfig: Path, tmp_path: Path
) -> None:
    namespace = pool
    rbac, core = client.RbacAuthorizationV1Api(kube), client.CoreV1Api(kube)
    rules = [{"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["list"]}]
    rbac.create_cluster_role({"metadata": {"name": f"look-{namespace}"}, "rules": rules})
    binding = {
        "metadata": {"name": f"look-{namespace}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"look-{namespace}"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"edit-{namespace}"}],
    }
    rbac.create_cluster_role_binding(binding)
    client.CustomObjectsApi(kube).patch_cluster_custom_object(
        "rfuav.io", "v1alpha1", "gpupools", pool, {"spec": {"nodeSelector": {"test": namespace}}}
    )
    (node,) = create_nodes(kubeconfig, 1, prefix=namespace, gpus=Gpus(), labels={"test": namespace})
    try:
        wait_until_ready(core, node)
        path = tmp_path / "job.yaml"
        job = yaml.safe_load(rfuav(*TRAIN, "--dry-run=client", "-o", "yaml", "--pool", pool).out)
        job["spec"]["output"] = {"uri": "s3://models/first"}
        job["spec"]["dataset"]["train"] = {"uri": "s3://captures/train"}
        path.write_text(yaml.safe_dump(job))
        done = rfuav("preview", "-f", str(path))
        assert (done.code, done.out) == (0, f"It would start now on {node}\n")
        assert "Left out, because you may not read it: priorityclasses\n" in done.err
        job["spec"]["resources"] = {"gpus": 30}
        path.write_text(yaml.safe_dump(job))
        found = read(rfuav("preview", "-f", str(path), "-o", "json").out)
        assert (found["starts_now"], found["reason"]) == (False, "NoMatchingNode")
        assert rfuav("why", "first").code == 3  # nothing was created
    finally:
        core.delete_node(node)
        rbac.delete_cluster_role_binding(f"look-{namespace}")
        rbac.delete_cluster_role(f"look-{namespace}")


def wait_until_ready(core: client.CoreV1Api, node: str) -> None:
    end = time.monotonic() + 20
    while not any(c.type == "Ready" and c.status == "True" for c in core.read_node(node).status.conditions or ()):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_kubectl_finds_the_plugin_and_completes_names_of_jobs(program: Callable, jobs: Jobs) -> None:
    jobs.create("drones-resnet18")
    jobs.create("done", status={"phase": "Succeeded"})
    assert program("kubectl", "rfuav", "--version").communicate()[0].startswith("kubectl-rfuav ")
    completed = program("kubectl", "__complete", "rfuav", "stop", "dr").communicate()[0].splitlines()
    assert completed[0] == "tj/drones-resnet18"
    assert completed[-1] == ":4"
    for words, found in (
        (["why", "tj/"], ["tj/done", "tj/drones-resnet18"]),
        (["stop", ""], ["tj/drones-resnet18"]),
        (["su"], ["submit", "suspend"]),
        (["submit", ""], ["infer", "train"]),
        (["queue", "-o", "j"], ["json"]),
        (["why", "--no-h"], ["--no-headers"]),
    ):
        out = program("kubectl_complete-rfuav", *words).communicate()[0].splitlines()
        assert out == [*found, ":4"], words
