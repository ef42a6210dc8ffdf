"""Stored objects: what may change, what the API server documents and prints, and that applying twice changes nothing."""

import copy
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_manifests import GOOD, changed
from kubernetes import client

from rfuav_crds.contract import API_VERSION
from rfuav_crds.crd import CRDS, Crd

pytestmark = pytest.mark.contract

EXAMPLES = Path(__file__).parents[2] / "examples"
JOBS = [crd for crd in CRDS if crd.kind.endswith("Job")]
CHANGE = "cannot change once the job exists"


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_examples_are_accepted(kubectl, namespace: str, path: Path) -> None:
    documents = [d for d in yaml.safe_load_all(path.read_text()) if d is not None and d["kind"] != "Kustomization"]
    for document in documents:
        document["metadata"].pop("namespace", None)
        done = kubectl(
            "create",
            "-n",
            namespace,
            "--dry-run=server",
            "--validate=strict",
            "-f",
            "-",
            manifest=document,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def stored(kubectl, namespace: str, manifest: dict[str, Any]) -> dict[str, Any]:
    kubectl("apply", "-n", namespace, "-f", "-", manifest=manifest)
    return read(kubectl, namespace, manifest)


def read(kubectl, namespace: str, manifest: dict[str, Any]) -> dict[str, Any]:
    found = kubectl(
        "get", "-n", namespace, manifest["kind"], manifest["metadata"]["name"], "-o", "json", "--show-managed-fields"
    )
    return json.loads(found.stdout)


FULL = {
    "TrainingJob": changed(
        "TrainingJob",
        {
            "spec.weightsCache.uri": "pvc://weights/tv",
            "spec.training.earlyStopping": {},
            "spec.activeDeadlineSeconds": 60,
            "spec.podTemplate.env": [{"name": "A", "value": "1"}],
        },
    ),
    "InferenceJob": changed("InferenceJob", {"spec.iq": {}, "spec.shards": 4, "spec.parallelism": 2}),
}

# kind, merge patch of spec, the field that the refusal names (None: it is allowed)
PATCHES: list[tuple[str, dict[str, Any], str | None]] = [
    *(
        (kind, patch, None)
        for kind in FULL
        for patch in (
            {"suspend": True},
            {"suspend": False},
            {"ttlSecondsAfterFinished": 5},
            {"ttlSecondsAfterFinished": None},
            {"activeDeadlineSeconds": 5},
            {"activeDeadlineSeconds": None},
            {"cancel": True},
            {"pool": "lab"},
            {"priorityClassName": "urgent"},
        )
    ),
    ("InferenceJob", {"parallelism": 4}, None),
    *(
        (kind, patch, f"spec.{next(iter(patch))}")
        for kind in FULL
        for patch in (
            {"output": {"uri": "pvc://other/place"}},
            {"resources": {"gpus": 2}},
            {"resources": {"gpuMemory": "8Gi"}},
            {"backoffLimit": 7},
            {"terminationGracePeriodSeconds": 9},
            {"image": "trainer:2"},
            {"podTemplate": {"env": [{"name": "A", "value": "2"}]}},
            {"podTemplate": {"nodeSelector": {"a": "b"}}},
        )
    ),
    *(
        ("TrainingJob", patch, f"spec.{next(iter(patch))}")
        for patch in (
            {"model": {"architecture": "resnet50"}},
            {"model": {"numClasses": 9}},
            {"dataset": {"imageSize": 64}},
            {"training": {"epochs": 5}},
            {"training": {"earlyStopping": None}},
            {"checkpoint": {"keep": 9}},
            {"nodes": 2},
            {"weightsCache": None},
            {"weightsCache": {"uri": "pvc://weights/other"}},
        )
    ),
    *(
        ("InferenceJob", patch, f"spec.{next(iter(patch))}")
        for patch in (
            {"model": {"fromTrainingJob": "other"}},
            {"input": {"pattern": "**/*.iq"}},
            {"iq": None},
            {"iq": {"fftSize": 2048}},
            {"evaluation": {}},
            {"shards": 8},
            {"batchSize": 4},
            {"precision": "fp32"},
            {"errorThreshold": 0.5},
        )
    ),
]


@pytest.fixture
def jobs(kube: client.ApiClient, namespace: str) -> client.CustomObjectsApi:
    objects = client.CustomObjectsApi(kube)
    for crd in JOBS:
        objects.create_namespaced_custom_object("rfuav.io", "v1alpha1", namespace, crd.plural, FULL[crd.kind])
    return objects


def patch(objects: client.CustomObjectsApi, namespace: str, kind: str, spec: dict[str, Any], **how: Any) -> str:
    """Empty when the merge patch of the spec is taken, else the API server's words."""
    name = FULL[kind]["metadata"]["name"]
    try:
        objects.patch_namespaced_custom_object(
            "rfuav.io", "v1alpha1", namespace, f"{kind.lower()}s", name, {"spec": spec}, **how
        )
    except client.ApiException as error:
        if error.status != 422:
            raise
        return str(json.loads(error.body)["message"])
    return ""


def test_what_may_change_and_what_may_not(jobs: client.CustomObjectsApi, namespace: str) -> None:
    for kind, spec, field in PATCHES:
        message = patch(jobs, namespace, kind, spec, dry_run="All")
        if field is None:
            assert message == "", (kind, spec)
        else:
            assert field in message, (kind, spec)
            assert CHANGE in message, (kind, spec)


def test_an_optional_field_cannot_be_removed_and_added_again(jobs: client.CustomObjectsApi, namespace: str) -> None:
    assert patch(jobs, namespace, "TrainingJob", {"weightsCache": None}) != ""
    assert patch(jobs, namespace, "InferenceJob", {"evaluation": {}}) != ""


def test_what_may_not_change_is_named_once_for_all(jobs: client.CustomObjectsApi, namespace: str) -> None:
    message = patch(jobs, namespace, "TrainingJob", {"nodes": 2, "suspend": True, "training": {"seed": 5}})
    assert CHANGE in message
    assert message.endswith("Changed: spec.training spec.nodes")


@pytest.mark.parametrize("phase", [None, "Running"])
def test_a_status_in_the_same_write_opens_nothing(
    jobs: client.CustomObjectsApi, namespace: str, phase: str | None
) -> None:
    for crd in JOBS:
        name = FULL[crd.kind]["metadata"]["name"]
        here = ("rfuav.io", "v1alpha1", namespace, crd.plural, name)
        if phase is not None:
            jobs.patch_namespaced_custom_object_status(*here, {"status": {"phase": phase, "message": "old"}})
        for write, refused in (
            (jobs.patch_namespaced_custom_object, True),
            (jobs.patch_namespaced_custom_object_status, False),  # it leaves the spec alone
        ):
            try:
                write(*here, {"spec": {"image": "trainer:2"}, "status": {"phase": "Queued", "message": "new"}})
                taken = True
            except client.ApiException as error:
                assert CHANGE in str(error.body)
                taken = False
            assert taken is not refused, (crd.kind, write)
        assert jobs.get_namespaced_custom_object(*here)["spec"].get("image", "") == ""


def test_cancel_is_one_way(jobs: client.CustomObjectsApi, namespace: str) -> None:
    for kind in FULL:
        assert patch(jobs, namespace, kind, {"cancel": True}) == ""
        message = patch(jobs, namespace, kind, {"cancel": False})
        assert "spec.cancel" in message
        assert "create a new job" in message


@pytest.mark.parametrize("phase", ["Queued", "Admitted", "Running", "Succeeded"])
def test_pool_and_priority_change_while_queued_alone(jobs: client.CustomObjectsApi, namespace: str, phase: str) -> None:
    for crd in JOBS:
        jobs.patch_namespaced_custom_object_status(
            "rfuav.io",
            "v1alpha1",
            namespace,
            crd.plural,
            FULL[crd.kind]["metadata"]["name"],
            {"status": {"phase": phase}},
        )
        for field in ("pool", "priorityClassName"):
            message = patch(jobs, namespace, crd.kind, {field: "other"}, dry_run="All")
            if phase == "Queued":
                assert message == ""
            else:
                assert f"spec.{field}" in message
                assert "only while the job is queued" in message
        assert patch(jobs, namespace, crd.kind, {"suspend": True}, dry_run="All") == ""


@pytest.mark.parametrize("crd", CRDS, ids=lambda crd: crd.kind)
def test_applying_twice_changes_nothing_and_owns_no_status(kubectl, namespace: str, crd: Crd) -> None:
    manifest = copy.deepcopy(FULL.get(crd.kind, GOOD[crd.kind]))
    if crd.scope == "Cluster":
        manifest["metadata"]["name"] = namespace  # unique, and removed below
    try:
        before = stored(kubectl, namespace, manifest)
        after = stored(kubectl, namespace, manifest)
        assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
        server_side = ("apply", "--server-side", "--force-conflicts", "-n", namespace, "-f", "-")
        kubectl(*server_side, manifest=manifest | {"status": {"conditions": []}})
        first = read(kubectl, namespace, manifest)
        assert (first["spec"], first["metadata"]["generation"]) == (before["spec"], before["metadata"]["generation"])
        kubectl(*server_side, manifest=manifest | {"status": {"conditions": []}})
        second = read(kubectl, namespace, manifest)
        assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        assert all("f:status" not in entry["fieldsV1"] for entry in second["metadata"]["managedFields"])
    finally:
        if crd.scope == "Cluster":
            kubectl("delete", crd.plural, namespace)


LIMITS = [
    {"apiVersion": API_VERSION, "kind": "GPUPool", "spec": {"perGPU": [{"minMemory": "22Gi", "inference": 2}, {}]}},
    {"apiVersion": API_VERSION, "kind": "GPUPool", "spec": {"defaultQuota": {"gpus": {"borrowingLimit": 1}}}},
    {
        "apiVersion": API_VERSION,
        "kind": "GPUQuota",
        "spec": {"pools": [{"name": "a"}, {"name": "b", "gpus": {"borrowingLimit": 0}}]},
    },
]


@pytest.mark.parametrize("limits", LIMITS, ids=["tiers", "default-quota", "quota"])
@pytest.mark.parametrize("manager", ["kubectl", "argocd-controller", "kustomize-controller"])
def test_limits_applied_by_a_client_are_taken_over_by_server_side_apply(kubectl, namespace, limits, manager) -> None:
    """Without --force-conflicts: nothing that the API server fills in makes what is stored differ from what was applied."""
    quota = limits["kind"] == "GPUQuota"
    manifest = limits | {"metadata": {"name": "default" if quota else namespace}}
    try:
        kubectl("apply", "-n", namespace, "-f", "-", manifest=manifest)
        kubectl("apply", "--server-side", f"--field-manager={manager}", "-n", namespace, "-f", "-", manifest=manifest)
    finally:
        kubectl("delete", "-n", namespace, limits["kind"], manifest["metadata"]["name"])


def _written() -> Iterator[Any]:
    """Jobs as people write them, with few of the fields of each object."""
    for path in sorted(EXAMPLES.rglob("*.yaml")):
        for index, document in enumerate(yaml.safe_load_all(path.read_text())):
            if document is not None and document["kind"] in FULL:
                document["metadata"].pop("namespace", None)
                yield pytest.param(document, id=f"{path.relative_to(EXAMPLES)}-{index}")
    for kind, path, value in (
        ("TrainingJob", "training", {"earlyStopping": {}, "optimizer": {}, "schedule": {"name": "cosine"}}),
        ("TrainingJob", "dataset.iq", {"sampleRate": "50M"}),
        ("TrainingJob", "resources", {"gpus": 0}),
        ("TrainingJob", "podTemplate.metadata", {"labels": {"team": "radio"}}),
        ("TrainingJob", "podTemplate.tolerations", [{"key": "a", "operator": "Exists"}, {"operator": "Exists"}]),
        (
            "TrainingJob",
            "podTemplate.volumes",
            [{"name": "a", "emptyDir": {}}, {"name": "b", "secret": {"secretName": "c"}}],
        ),
        ("InferenceJob", "iq", {}),
        ("InferenceJob", "evaluation", {}),
    ):
        yield pytest.param(changed(kind, {f"spec.{path}": value}), id=f"{kind}-{path}")


@pytest.mark.parametrize("manager", ["kubectl", "argocd-controller"])
@pytest.mark.parametrize("manifest", [*_written()])
def test_jobs_applied_by_a_client_are_taken_over_by_server_side_apply(kubectl, namespace, manifest, manager) -> None:
    """Without --force-conflicts, by one manager and by a second; and what cannot change still cannot."""

    def server_side(by: str, what: dict[str, Any], *more: str) -> subprocess.CompletedProcess[str]:
        arguments = ("apply", "--server-side", f"--field-manager={by}", "-n", namespace, "-f", "-", *more)
        return kubectl(*arguments, manifest=what, check=False)

    before = stored(kubectl, namespace, manifest)
    for by in (manager, manager, "second"):
        assert server_side(by, manifest).stderr == ""
    after = stored(kubectl, namespace, manifest)
    assert (after["spec"], after["metadata"]["generation"]) == (before["spec"], 1)
    other = copy.deepcopy(manifest)
    other["spec"].setdefault("resources", {})["memory"] = "7Gi"
    refused = server_side(manager, other, "--force-conflicts").stderr
    assert CHANGE in refused
    assert "spec.resources" in refused


def test_what_is_written_whole_is_owned_whole(jobs: client.CustomObjectsApi, namespace: str) -> None:
    status = {"phase": "Queued", "conditions": [{"type": "Running", "status": "False", "reason": "Queued"}]}
    status["conditions"][0] |= {"message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    for crd in JOBS:
        here = ("rfuav.io", "v1alpha1", namespace, crd.plural, FULL[crd.kind]["metadata"]["name"])
        done = jobs.patch_namespaced_custom_object_status(*here, {"status": status})
        owned = {entry.get("subresource", ""): entry["fieldsV1"] for entry in done["metadata"]["managedFields"]}
        assert owned["status"] == {"f:status": {}}
        assert owned[""]["f:spec"]["f:podTemplate"] == {}


def fields(schemas: dict[str, Any], node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, child in node.get("properties", {}).items():
        yield f"{path}.{name}", child
        yield from fields(schemas, child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from fields(schemas, node[key], f"{path}[]")


def test_every_field_is_explained(kubectl) -> None:
    schemas = json.loads(kubectl("get", "--raw", "/openapi/v3/apis/rfuav.io/v1alpha1").stdout)["components"]["schemas"]
    for crd in CRDS:
        schema = schemas[f"io.rfuav.v1alpha1.{crd.kind}"]
        found = list(fields(schemas, schema, crd.kind))
        assert len(found) > 20
        assert [
            path for path, node in found if not node.get("description") and not path.startswith(f"{crd.kind}.metadata")
        ] == []


@pytest.mark.parametrize("crd", CRDS, ids=lambda crd: crd.kind)
def test_kubectl_explains_each_kind(kubectl, crd: Crd) -> None:
    assert "spec" in kubectl("explain", crd.plural).stdout
    text = kubectl("explain", f"{crd.plural}.spec").stdout
    assert "Default" in text
    assert "<no description>" not in text


COLUMNS = {
    "TrainingJob": ["NAME", "PHASE", "PROGRESS", "EPOCH", "LOSS", "ACC", "GPUS", "NODE", "REASON", "AGE"],
    "InferenceJob": ["NAME", "PHASE", "PROGRESS", "DONE", "FAILED", "RATE", "NODE", "REASON", "AGE"],
}
STATUS = {
    "phase": "Running",
    "reason": "Training",
    "progress": {"percent": 41, "epoch": 7, "processed": 123, "failed": 4, "samplesPerSecond": 55.5},
    "metrics": {"valLoss": 0.2345, "valAccuracy": 0.9123},
    "assignments": [{"pod": "p", "node": "node-a", "gpus": 1}],
}


def test_printed_columns_show_the_status(kubectl, jobs: client.CustomObjectsApi, namespace: str) -> None:
    for crd in JOBS:
        jobs.patch_namespaced_custom_object_status(
            "rfuav.io", "v1alpha1", namespace, crd.plural, FULL[crd.kind]["metadata"]["name"], {"status": STATUS}
        )
        header, row = kubectl("get", "-n", namespace, crd.short).stdout.splitlines()
        assert header.split() == COLUMNS[crd.kind]
        shown = ["Running", "41", "7", "0.2345", "0.9123", "1", "node-a", "Training"]
        if crd.kind == "InferenceJob":
            shown = ["Running", "41", "123", "4", "55.5", "node-a", "Training"]
        assert row.split()[1:-1] == shown
    both = kubectl("get", "-n", namespace, "rfuav", "-o", "name").stdout
    assert "trainingjob" in both
    assert "inferencejob" in both
