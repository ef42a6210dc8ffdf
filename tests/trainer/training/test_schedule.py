"""The learning rate over a training, against torch's own schedulers, and as the training really used it."""

import json

import pytest
import torch
from torch.optim import lr_scheduler
from trainer.trainer_kit import image_set, training_spec

from rfuav_crds.training import Schedule
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.reporting.progress import Progress
from rfuav_trainer.training import train
from rfuav_trainer.training.schedule import factor

EPOCHS, STEPS = 9, 7
TORCHS = {
    "constant": lambda o: lr_scheduler.ConstantLR(o, factor=1.0),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS * STEPS),
    "step": lambda o: lr_scheduler.StepLR(o, EPOCHS * STEPS // 3, 0.1),
}


@pytest.mark.parametrize("name", TORCHS)
def test_it_is_torchs_schedule(name):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs, ours, expected = TORCHS[name](optimizer), [], []
    for step in range(EPOCHS * STEPS):
        expected.append(optimizer.param_groups[0]["lr"])
        ours.append(factor(Schedule(name=name), step, steps=STEPS, epochs=EPOCHS))
        optimizer.step()
        theirs.step()
    assert ours == pytest.approx(expected)


@pytest.mark.parametrize("name", TORCHS)
def test_the_warm_up_rises_in_equal_steps_to_where_the_schedule_begins(name):
    warm = Schedule(name=name, warmup_epochs=2)
    values = [factor(warm, step, steps=STEPS, epochs=EPOCHS) for step in range(EPOCHS * STEPS)]
    rise = [b - a for a, b in zip([0.0, *values], values[: 2 * STEPS + 1], strict=False)]
    assert rise == pytest.approx([1 / (2 * STEPS + 1)] * (2 * STEPS + 1))
    assert max(values) == values[2 * STEPS] == 1.0
    assert min(values) > 0


def test_a_training_uses_it(desk):
    image_set(desk / "captures/train")  # 18 pictures to train on, 5 steps an epoch
    spec = training_spec(training__schedule={"name": "step", "warmupEpochs": 1}, training__epochs=4)
    train.run(desk.job("TrainingJob", spec), Progress(None), StopSignal())
    rows = [json.loads(line) for line in (desk / "models/out/history.jsonl").read_text().splitlines()]
    assert [row["learningRate"] for row in rows] == pytest.approx([0.001 * 5 / 6, 0.001, 0.0001, 0.00001])
