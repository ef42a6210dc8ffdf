"""The API server alone refuses bad manifests, with messages that name the field and what to write instead."""

import json
from typing import Any

import pytest
from api_manifests import BAD, GOOD, Bad, changed
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from rfuav_crds.crd import CRDS

pytestmark = pytest.mark.contract

PLURAL = {crd.kind: crd.plural for crd in CRDS}


def dry_run(kube: client.ApiClient, manifest: dict[str, Any]) -> str:
    """The API server's words when it refuses the manifest, under strict validation; empty when it takes it."""
    objects = client.CustomObjectsApi(kube)
    where = {"group": "rfuav.io", "version": "v1alpha1", "plural": PLURAL[manifest["kind"]], "body": manifest}
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
