"""The job as it is read: on a laptop, in a pod, and what makes two jobs the same."""

import pytest
from trainer.trainer_kit import inference_spec, training_spec

from rfuav_trainer.errors import InvalidConfigurationError
from rfuav_trainer.job import from_file


def test_a_file_output_is_fine_on_a_laptop_alone(desk):
    spec = training_spec(output__uri=f"file://{desk.root}/out")
    assert from_file(desk.write_job("TrainingJob", spec)).spec.output.uri.startswith("file://")
    with pytest.raises(InvalidConfigurationError, match="lost with the pod"):
        desk.job("TrainingJob", spec)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"pool": "other"}, True),
        ({"suspend": True}, True),
        ({"training__workers": 2}, True),
        ({"training__seed": 9}, False),
        ({"model__architecture": "resnet18"}, False),
    ],
)
def test_what_makes_a_job_another(desk, changes, same):
    one = desk.job("TrainingJob", training_spec()).fingerprint()
    assert (desk.job("TrainingJob", training_spec(**changes)).fingerprint() == one) is same


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"output__annotate": "all"}, {"errorThreshold": 0.5}])
def test_what_makes_an_inference_another(desk, changes):
    one = desk.job("InferenceJob", inference_spec()).fingerprint()
    assert desk.job("InferenceJob", inference_spec(**changes)).fingerprint() != one


@pytest.mark.parametrize("shard", [-1, 3])
def test_a_shard_that_is_not_there(desk, shard):
    with pytest.raises(InvalidConfigurationError, match="spec.shards is 3, counted from 0"):
        desk.job("InferenceJob", inference_spec(shards=3), shard=shard)
