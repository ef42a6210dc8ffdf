"""Classes may have the names that log lines use themselves."""

from trainer.trainer_kit import image_set, training_spec

from rfuav_trainer.data.dataset import open_dataset


def test_classes_with_the_names_of_log_fields(desk):
    image_set(desk / "captures/train", classes=("event", "level", "time"), count=3)
    job = desk.job("TrainingJob", training_spec())
    assert open_dataset(job, job.spec).classes == ["event", "level", "time"]
