"""The API server alone refuses bad manifests, with messages that name the field and what to write instead."""

import json
from typing import Any

import pytest
from api_manifests import BAD, GOOD, Bad, changed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from rfuav_crds import JobError, load_object
from rfuav_crds.contract import GROUP, PLURALS, VERSION

pytestmark = pytest.mark.contract


def dry_run(kube: client.ApiClient, manifest: dict[str, Any]) -> str:
    """The API server's words when it refuses the manifest, under strict validation; empty when it takes it."""
    objects = client.CustomObjectsApi(kube)
    where = {"group": GROUP, "version": VERSION, "plural": PLURALS[manifest["kind"]], "body": manifest}
    try:
        if manifest["kind"] == "GPUPool":
            objects.create_cluster_custom_object(**where, dry_run="All", field_validation="Strict")
        else:
            objects.create_namespaced_custom_object(
                **where, namespace="default", dry_run="All", field_validation="Strict"
            )
    except ApiException as error:
        if error.status not in (400, 422):
            raise
        return str(json.loads(error.body)["message"])
    return ""


def _id(bad: Bad) -> str:
    return f"{bad.kind}-{'-'.join(bad.changes)}-{list(bad.changes.values())!r}"[:100]


@pytest.mark.parametrize("kind", GOOD)
def test_the_manifests_that_the_table_changes_are_good(kube: client.ApiClient, kind: str) -> None:
    assert dry_run(kube, GOOD[kind]) == ""


def test_the_table_is_as_long_as_promised() -> None:
    assert len(BAD) >= 60


@pytest.mark.parametrize("bad", BAD, ids=_id)
def test_a_bad_manifest_is_refused_with_its_field_and_the_remedy(kube: client.ApiClient, bad: Bad) -> None:
    message = dry_run(kube, changed(bad.kind, bad.changes))
    assert bad.field in message
    assert bad.remedy in message


# Values at and beyond the edges of the rules, for fields of both kinds of job.
EDGES: dict[str, dict[str, list[Any]]] = {
    "TrainingJob": {
        "metadata.name": ["a", "a" * 40, "a" * 41, "-a", "a-", "1a", "a.b", "A"],
        "spec.model.architecture": ["resnet18", "vit_b_16", "vit_h_14", "swin_v2_t", "vit"],
        "spec.model.weights": ["none", "pretrained", "pvc://c/w", "pvc://c", "None", "file:///w", "file://w"],
        "spec.weightsCache": [{"uri": "pvc://w"}, {}, {"uri": "pvc://w/../x"}],
        "spec.dataset.imageSize": [15, 16, 224, 225, 2048, 2049],
        "spec.dataset.recordingPattern": [
            "(?P<recording>a)",
            "(?i)(?P<recording>(?:a|b)+[0-9]{1,3})$",
            "(?P<other>a)",
            "(?P<recording>a",
            r"(?P<recording>a)\1",
            "(?P<recording>a)(?=b)",
            "(?P<recording>a++)",
            "",
        ],
        "spec.dataset.validation": [{}, {"fraction": 0.5}, {"uri": "s3://abc/x"}, {"fraction": 1}],
        "spec.dataset.train.uri": ["pvc://c/a b", "pvc://c/.", "pvc://c/..a", "pvc://c/a/", "pvc://c-/a", "hf://a/b"],
        "spec.dataset.iq": [{}, {"hopSize": 1025}, {"sampleRate": "10k"}, {"sampleRate": 10241, "frameSeconds": 0.1}],
        "spec.training.schedule": [{}, {"warmupEpochs": 2}, {"warmupEpochs": 3}],
        "spec.training.epochs": [1, 3, 0],
        "spec.training.workers": [0, 64, 65, -1, "auto", "0"],
        "spec.resources": [
            {},
            {"gpus": 0, "gpuMemory": "1Gi"},
            {"memory": "1Gi"},
            {"memory": "2Gi", "sharedMemory": "2048Mi"},
            {"cpu": "1024"},
            {"cpu": "1025"},
            {"cpu": "1m"},
            {"cpu": "999u"},
            {"memory": "64Ti"},
            {"memory": "1E"},
            {"memory": "3e9"},
            {"memory": "+4Gi"},
            {"memory": ".5Ti"},
        ],
        "spec.image": ["", "a", "a/b:c", "host:5000/a", "a@sha256:" + "0" * 64, "a:b:c", "a//b", "-a"],
    },
    "InferenceJob": {
        "spec.model": [
            {},
            {"weights": "pvc://c/w"},
            {"weights": "pvc://c/w", "custom": "a:b"},
            {"weights": "pvc://c/w", "custom": "a:b", "architecture": "custom"},
            {"weights": "pvc://c/w", "architecture": "custom"},
            {"weights": "pvc://c/w", "custom": "a:b", "architecture": "vit_b_16"},
            {"fromTrainingJob": "a"},
            {"fromTrainingJob": "a", "custom": "a:b"},
            {"fromTrainingJob": "a" * 41},
        ],
        "spec.input.pattern": ["*", "a/../b", "a..b", "/a", "..", "**/*"],
        "spec.input.uri": ["pvc://c/a", "pvc://c/a.jsonl", "pvc://c/a.Parquet", "pvc://c/a.jsonl/b", "pvc://c/jsonl"],
        "spec.shards": [1, 4, 1000, 1001],
        "spec.parallelism": [1, 4, 5, 0],
        "spec.batchSize": ["auto", 1, 0, 65536, 65537],
        "spec.errorThreshold": [0, 1, 0.5, -0.1, 1.1],
        "spec.iq": [{}, {"fftSize": 16, "hopSize": 16}, {"fftSize": 16, "hopSize": 17}, {"sampleRate": "1G"}],
        "spec.podTemplate.tolerations": [[], [{"operator": "Exists"}], [{"key": "a", "value": "b"}], [{}]],
    },
}


@st.composite
def edge_manifests(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(sorted(EDGES)))
    paths = draw(st.lists(st.sampled_from(sorted(EDGES[kind])), min_size=1, max_size=3, unique=True))
    return changed(kind, {path: draw(st.sampled_from(EDGES[kind][path])) for path in paths})


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edge_manifests())
def test_the_models_and_the_api_server_agree(kube: client.ApiClient, manifest: dict[str, Any]) -> None:
    try:
        load_object(manifest)
        problems = ""
    except JobError as error:
        problems = str(error)
    assert bool(dry_run(kube, manifest)) == bool(problems), problems
