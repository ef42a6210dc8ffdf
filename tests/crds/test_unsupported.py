"""The one table of what is not built yet: its rows point at fields that exist, and fire on what they are about."""

import pytest
from api_manifests import GOOD, changed

from rfuav_crds import KINDS, load_object
from rfuav_crds.unsupported import TABLE, unsupported


def stored(kind: str, changes: dict) -> dict:
    """The spec as the API server would hand it to the operator: accepted, with its defaults."""
    return load_object(changed(kind, changes)).spec.model_dump(by_alias=True, exclude_none=True)


@pytest.mark.parametrize("kind", GOOD)
def test_a_plain_manifest_asks_for_nothing_that_is_missing(kind):
    assert unsupported(stored(kind, {}), kind) == []


@pytest.mark.parametrize(
    ("kind", "row"), [(k, r) for k, rows in TABLE.items() for r in rows], ids=lambda v: getattr(v, "path", v)
)
def test_every_row_is_about_a_field_that_exists(kind, row):
    current = KINDS[kind].model_fields["spec"].annotation
    for step in row.path.split("."):
        fields = {field.alias: field.annotation for field in current.model_fields.values()}
        assert step in fields
        options = getattr(fields[step], "__args__", (fields[step],))
        current = next((o for o in options if hasattr(o, "model_fields")), None)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("TrainingJob", {"spec.output.uri": "file:///out"}, "spec.output.uri: a file:/// folder is lost with the pod"),
        ("InferenceJob", {"spec.resources.gpus": 2}, "spec.resources.gpus: a shard is classified on one GPU"),
        ("InferenceJob", {"spec.input.pattern": "**/*.MP4"}, "spec.input.pattern: videos cannot be read yet"),
    ],
)
def test_what_is_missing_is_said(kind, changes, message):
    assert any(line.startswith(message) for line in unsupported(stored(kind, changes), kind))


@pytest.mark.parametrize("kind", ["TrainingJob", "InferenceJob"])
def test_an_output_may_lie_in_a_store(kind):
    assert unsupported(stored(kind, {"spec.output.uri": "s3://bucket/out"}), kind) == []


def test_an_image_of_ones_own_may_use_several_gpus():
    changes = {"spec.resources.gpus": 2, "spec.image": "mine:1"}
    assert unsupported(stored("TrainingJob", changes), "TrainingJob") == []


def test_an_output_on_a_mounted_volume_is_kept():
    changes = {
        "spec.output.uri": "file:///data/out",
        "spec.podTemplate.volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}],
        "spec.podTemplate.volumeMounts": [{"name": "d", "mountPath": "/data"}],
    }
    assert unsupported(stored("TrainingJob", changes), "TrainingJob") == []
    changes["spec.podTemplate.volumeMounts"] = [{"name": "d", "mountPath": "/dat"}]
    assert unsupported(stored("TrainingJob", changes), "TrainingJob") != []
