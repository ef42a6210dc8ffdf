"""`make bench-accuracy`: every architecture has a valid job, and what is judged is what it says."""

import pytest
from bench import accuracy
from bench.train import job_file

from rfuav_trainer.job import from_file
from rfuav_trainer.networks import architectures


@pytest.mark.parametrize("architecture", architectures.ARCHITECTURES)
def test_every_architecture_has_a_job_and_a_stated_accuracy_well_above_chance(architecture, tmp_path):
    spec = accuracy.job_spec(architecture, tmp_path, tmp_path, threads=2, seed=0)
    job = from_file(job_file(tmp_path, spec))
    architectures.check(architecture, job.spec.dataset.image_size)
    assert job.spec.model.architecture == architecture
    assert 2 / len(accuracy.CLASSES) < accuracy.RECIPES[architecture].stated < 1


def test_no_architecture_is_left_out_or_invented():
    assert {*accuracy.RECIPES} == {*architectures.ARCHITECTURES}


@pytest.mark.parametrize(
    ("accuracies", "reached"),
    [([0.3, 0.9], True), ([0.9, 0.89], False), ([0.95], False), ([], False)],
    ids=["reached", "the last epoch counts", "ended early", "failed"],
)
def test_the_last_epoch_is_what_is_judged(accuracies, reached):
    recipe = accuracy.Recipe(rate=1e-3, epochs=2, stated=0.9)
    found = accuracy.judge(recipe, [{"valAccuracy": value} for value in accuracies])
    assert found["reached"] is reached
