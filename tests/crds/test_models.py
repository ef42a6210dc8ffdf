"""The models refuse what the API server refuses, and say which field and what to write instead."""

from pathlib import Path

import pytest
import yaml
from api_manifests import BAD, GOOD, Bad, changed
from hypothesis import given
from hypothesis import strategies as st

from rfuav_crds import JobError, load_job, load_object, parse_quantity
from rfuav_crds.rules import matches


@pytest.mark.parametrize("kind", GOOD)
def test_good_manifests_load(kind):
    assert load_object(GOOD[kind]).kind == kind


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.kind}-{list(bad.changes.items())!r}"[:100])
def test_bad_manifests_name_the_field(bad: Bad):
    with pytest.raises(JobError) as caught:
        load_object(changed(bad.kind, bad.changes))
    assert bad.field in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"spec.training.epohcs": 3}, "spec.training.epohcs: unknown field: did you mean epochs?"),
        ({"spec.podTemplate.volumes": [{"name": "d", "emptyDri": {}}]}, "did you mean emptyDir?"),
        ({"spec.xyzzy": 3}, "spec.xyzzy: unknown field: remove it"),
        ({"spec.training.epochs": 0}, "spec.training.epochs: input should be greater than or equal to 1 (found 0)"),
        ({"spec.resources.cpu": 0.5}, 'must be a whole number or a string in quotes, as in "500m" (found 0.5)'),
        ({"spec.model.weights": "pretrained"}, "spec.model.weights: pretrained weights are looked up in weightsCache"),
        ({"spec.output": {}}, "spec.output.uri: is required: add it"),
    ],
)
def test_errors_of_a_job_say_what_to_write(changes, line):
    with pytest.raises(JobError) as caught:
        load_job(changed("TrainingJob", changes))
    assert line in str(caught.value)


def test_every_wrong_field_has_a_line_of_its_own():
    with pytest.raises(JobError) as caught:
        load_job(changed("TrainingJob", {"spec.training.epochs": 0, "spec.dataset.imageSize": 1, "spec.nodes": 0}))
    assert len(str(caught.value).splitlines()) == 3


def test_a_file_may_hold_other_objects_and_plain_exponents(tmp_path: Path):
    file = tmp_path / "job.yaml"
    job = changed("TrainingJob", {"spec.training.epochs": 3})
    file.write_text("kind: ConfigMap\n---\n" + yaml.safe_dump(job) + "---\n")
    loaded = load_job(file)
    assert loaded.spec.training.epochs == 3
    text = file.read_text().replace("epochs: 3", "optimizer: {learningRate: 1e-4}")
    file.write_text(text)
    assert load_job(file).spec.training.optimizer.learning_rate == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("a: [", "is not YAML"),
        ("", "holds 0 jobs: write exactly one"),
        ("kind: Pod", "holds 0 jobs: write exactly one"),
        ("kind: TrainingJob\n---\nkind: TrainingJob", "holds 2 jobs: write exactly one"),
    ],
)
def test_files_that_hold_no_job(tmp_path: Path, text, message):
    file = tmp_path / "job.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(JobError, match=message):
        load_job(file)


def test_other_kinds_are_no_jobs():
    with pytest.raises(JobError, match="write TrainingJob or InferenceJob"):
        load_job(GOOD["GPUPool"])


def test_defaults_are_those_of_the_reference_service():
    spec = load_job(GOOD["TrainingJob"]).spec
    loop = spec.training
    assert (loop.batch_size, loop.optimizer.learning_rate, loop.optimizer.name, loop.epochs) == (8, 1e-4, "adam", 100)
    assert spec.dataset.validation.fraction == 0.2
    assert spec.resources.gpus == 1


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("16Gi", 16 * 2**30),
        ("500m", 0.5),
        ("100M", 1e8),
        (4, 4),
        ("1E", 1e18),
        ("1e3", 1000),
        (".5", 0.5),
        ("2.5k", 2500),
    ],
)
def test_quantities(text, number):
    assert float(parse_quantity(text)) == number


@given(st.integers(0, 2**33), st.sampled_from(["", "k", "Ki", "M", "Mi", "G", "Gi"]))
def test_a_quantity_is_its_number_times_its_factor(number, suffix):
    factor = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3}[suffix]
    assert parse_quantity(f"{number}{suffix}") == number * factor


@pytest.mark.parametrize("text", ["16GB", "", "1 Gi", "Gi", "1ki", "1e", "--1", "\u0661"])
def test_what_is_no_quantity(text):
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)


def test_a_pattern_is_about_the_whole_string():
    rule = matches("a+", "write a")
    assert not rule.broken_by("aa")
    assert rule.broken_by("aa\n")
    assert rule.broken_by("")
    assert not matches("a+", "write a", optional=True).broken_by("")


@pytest.mark.parametrize(("was", "means"), [(True, "all"), (False, "none"), ("default", "default")])
def test_a_boolean_of_annotate_means_what_it_meant(was, means):
    assert load_object(changed("InferenceJob", {"spec.output.annotate": was})).spec.output.annotate == means
