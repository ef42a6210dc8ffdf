"""One step of the optimizer, against PyTorch's own loop written out, and the sums that make several batches one."""

import copy

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from rfuav_crds.training import TrainingLoop
from rfuav_trainer.data import augment_pictures
from rfuav_trainer.data.batches import Batch
from rfuav_trainer.data.samples import Preprocessing
from rfuav_trainer.distributed.process_group import World
from rfuav_trainer.training import loss, schedule
from rfuav_trainer.training.ema import Average
from rfuav_trainer.training.learner import Learner, Moment

CPU = torch.device("cpu")
PLAIN = Preprocessing("image", 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 16), nn.ReLU(), nn.Linear(16, 3))


def batch(count=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return Batch([None] * count, pictures, torch.randint(0, 3, (count,), generator=generator))


def parts(whole: Batch, *sizes):
    found, start = [], 0
    for size in sizes:
        found.append(Batch([None] * size, whole.pictures[start : start + size], whole.labels[start : start + size]))
        start += size
    return found


def learner(net, *, number_format="fp32", weights=None, **fields):
    training = TrainingLoop.model_validate({"epochs": 5, **fields})
    return Learner(
        training, net, device=CPU, number_format=number_format, preprocessing=PLAIN, world=World(), weights=weights
    )


def same(one, other, **tolerance):
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize(
    ("optimizer", "theirs"),
    [
        ({"name": "adam"}, lambda p: torch.optim.Adam(p, lr=0.01)),
        ({"name": "adam", "weightDecay": 0.1}, lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1)),
        ({"name": "adamw", "weightDecay": 0.1}, lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1)),
        ({"name": "sgd"}, lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)),
        ({"name": "sgd", "momentum": 0.5}, lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.5)),
    ],
    ids=lambda v: str(v) if isinstance(v, dict) else "",
)
@pytest.mark.parametrize("clip", [None, 0.05])
def test_a_step_is_pytorchs(optimizer, theirs, clip):
    ours, plain = network(), network()
    fields = {"optimizer": {**optimizer, "learningRate": 0.01}, **({"clipNorm": clip} if clip else {})}
    one, other = learner(ours, **fields), theirs(plain.parameters())
    for number in range(3):
        seen = one.step([batch(seed=number)], Moment(0, number, 10))
        given = batch(seed=number)
        other.zero_grad()
        scores = plain(given.pictures / 255)
        mean = nn.functional.cross_entropy(scores, given.labels)
        mean.backward()
        if clip:
            nn.utils.clip_grad_norm_(plain.parameters(), clip)
        other.step()
        assert seen[0].item() == pytest.approx(6 * mean.item(), rel=1e-5)
        assert seen[1].item() == (scores.argmax(1) == given.labels).sum().item()
        assert seen[2].item() == 6
    same(ours, plain)


def test_clipping_does_something():
    moved = []
    for fields in ({"clipNorm": 0.05}, {}):
        net = network()
        learner(net, optimizer={"name": "sgd", "learningRate": 0.1}, **fields).step([batch()], Moment(0, 0, 10))
        pairs = zip(net.parameters(), network().parameters(), strict=True)
        moved.append(sum((a - b).square().sum() for a, b in pairs).sqrt().item())
    assert moved[0] == pytest.approx(0.05 * 0.1, rel=1e-2)  # the norm times the learning rate
    assert moved[1] > 2 * moved[0]


@pytest.mark.parametrize("sizes", [(6,), (3, 3), (4, 2), (1, 2, 3), (6, 0)])
@pytest.mark.parametrize("fields", [{}, {"labelSmoothing": 0.1}], ids=str)
def test_batches_add_up_to_one_step(sizes, fields):
    whole, cut = network(), network()
    a = learner(whole, **fields).step([batch()], Moment(0, 0, 10))
    b = learner(cut, **fields).step(parts(batch(), *sizes), Moment(0, 0, 10))
    torch.testing.assert_close(a, b)
    same(whole, cut, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["constant", "cosine", "step"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_every_schedule_warms_up_every_optimizer(name, optimizer):
    fields = {"schedule": {"name": name, "warmupEpochs": 2}, "optimizer": {"name": optimizer, "learningRate": 0.1}}
    one = learner(network(), **fields)
    rates = []
    for epoch in range(5):
        for step in range(4):
            one.step([batch()], Moment(epoch, step, 4))
            rates.append(one.learning_rate)
    warm = rates[:8]
    assert warm == pytest.approx([0.1 * (i + 1) / 9 for i in range(8)])
    assert rates[8] == pytest.approx(0.1)
    assert rates == pytest.approx(
        [0.1 * schedule.factor(one.training.schedule, i, steps=4, epochs=5) for i in range(20)]
    )
    assert (rates[-1] < 0.02) == (name != "constant")


def test_balanced_weights_are_scikit_learns():
    labels = [0] * 10 + [1] * 3 + [2]
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    torch.testing.assert_close(loss.balanced_weights(labels, 3), torch.tensor(theirs).float())
    assert loss.balanced_weights([0, 0, 2], 3)[1] == 0


def test_class_weights_weigh_the_loss():
    given, weights = batch(), torch.tensor([0.5, 1.0, 3.0])
    scores = network()(given.pictures / 255)
    each = nn.functional.cross_entropy(scores, given.labels, reduction="none")
    ours = loss.cross_entropy(scores, given.labels, weights=weights, smoothing=0, mixed=None)
    torch.testing.assert_close(ours, (each * weights[given.labels]).sum())


def test_smoothed_labels_are_a_cross_entropy_with_soft_targets():
    given = batch()
    scores = network()(given.pictures / 255)
    soft = 0.8 * nn.functional.one_hot(given.labels, 3) + 0.2 / 3
    ours = loss.cross_entropy(scores, given.labels, weights=None, smoothing=0.2, mixed=None)
    torch.testing.assert_close(ours, -(soft * scores.log_softmax(1)).sum())


def test_mixup_is_a_cross_entropy_with_mixed_targets():
    given, random = batch(), np.random.default_rng(1)
    mixed = loss.mix(given.pictures.float(), given.labels, 0.4, random)
    scores = network()(mixed.pictures)
    one_hot = nn.functional.one_hot
    soft = mixed.share * one_hot(given.labels, 3) + (1 - mixed.share) * one_hot(mixed.others, 3)
    ours = loss.cross_entropy(scores, given.labels, weights=None, smoothing=0, mixed=mixed)
    torch.testing.assert_close(ours, -(soft * scores.log_softmax(1)).sum())
    order = np.random.default_rng(1)
    share, permutation = order.beta(0.4, 0.4), order.permutation(6)
    torch.testing.assert_close(
        mixed.pictures, share * given.pictures.float() + (1 - share) * given.pictures[permutation].float()
    )


def test_mixing_changes_with_the_step_and_with_nothing_else():
    def after(step):
        one = learner(network(), mixup=1.0)
        return one.step([batch()], Moment(0, step, 10))[0].item()

    assert after(1) == after(1) != after(2)


def test_the_average_follows_its_formula_and_is_what_is_saved_and_used():
    net = network()
    one = learner(net, emaDecay=0.9, optimizer={"learningRate": 0.05})
    mean = {name: value.clone() for name, value in net.state_dict().items()}
    for step in range(12):
        one.step([batch(seed=step)], Moment(0, step, 20))
        keep = min(0.9, (1 + step) / (10 + step))
        mean = {name: keep * mean[name] + (1 - keep) * value for name, value in net.state_dict().items()}
    for name, value in one.trained().items():
        torch.testing.assert_close(value, mean[name])
    averaged = network()
    averaged.load_state_dict(mean)
    torch.testing.assert_close(one.scores(batch().pictures), averaged(batch().pictures / 255))
    assert not torch.allclose(one.scores(batch().pictures), net(batch().pictures / 255))


def test_the_average_counts_what_is_no_number_with_a_point():
    net = nn.BatchNorm2d(2)
    average = Average(net, 0.5)
    net(torch.randn(4, 2, 3, 3))
    average.update(net, 100)
    assert average.state["num_batches_tracked"] == 1
    torch.testing.assert_close(average.state["running_mean"], 0.5 * net.running_mean)


def test_fp16_scales_and_skips_a_step_that_overflows():
    net = network()
    one = learner(net, number_format="fp16")
    before = copy.deepcopy(net.state_dict())
    one.scaler._lazy_init_scale_growth_tracker(CPU)
    one.scaler._scale.fill_(2.0**30)
    assert one.step([batch()], Moment(0, 0, 10))[2] == 6
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert one.scaler.get_scale() == 2.0**29
    one.scaler._scale.fill_(2.0**10)
    one.step([batch()], Moment(0, 1, 10))
    assert not torch.equal(net[1].weight, before["1.weight"])


def test_momentum_begins_at_zero_also_when_the_first_step_is_skipped():
    net = network()
    before = [parameter.detach().clone() for parameter in net.parameters()]
    torch.full((1000, 1000), 7.0)  # memory that an empty buffer could find
    one = learner(net, number_format="fp16", optimizer={"name": "sgd", "learningRate": 0.01})
    one.scaler._init_scale = 2.0**120
    one.step([batch()], Moment(0, 0, 10))
    assert all(torch.equal(now, then) for now, then in zip(net.parameters(), before, strict=True))
    buffers = [state["momentum_buffer"] for state in one.optimizer.state.values()]
    assert len(buffers) == len(before)
    assert all(not buffer.any() for buffer in buffers)


@pytest.mark.parametrize("number_format", ["bf16", "fp16"])
def test_half_precision_is_near_single_and_is_not_it(number_format):
    results = []
    for which in ("fp32", number_format):
        net = network()
        one = learner(net, number_format=which, optimizer={"name": "sgd", "learningRate": 0.01})
        for step in range(5):
            one.step([batch(seed=step)], Moment(0, step, 10))
        results.append(net[1].weight.detach())
        assert net[1].weight.dtype == torch.float32
    assert not torch.equal(*results)
    torch.testing.assert_close(*results, rtol=0.05, atol=2e-3)


def test_augmented_pictures_reach_the_network(monkeypatch):
    monkeypatch.setattr(augment_pictures, "apply", lambda pictures, names, random: torch.full_like(pictures, 7))
    given = []
    net = network()
    net.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].clone()))
    one = learner(net, augment=["CLAHE"])
    one.step([batch()], Moment(0, 0, 10))
    torch.testing.assert_close(given[0], torch.full_like(given[0], 7 / 255))
    one.scores(batch().pictures)
    torch.testing.assert_close(given[1], batch().pictures / 255)  # validation sees them as they are


def test_a_checkpoint_carries_all_that_the_next_step_needs():
    fields = {"emaDecay": 0.9, "optimizer": {"name": "adamw", "learningRate": 0.01}}
    one, other = learner(network(), number_format="fp16", **fields), learner(network(1), number_format="fp16", **fields)
    one.step([batch()], Moment(0, 0, 10))
    one.scaler._scale.fill_(2.0**12)
    other.load(copy.deepcopy(one.state()))
    for which in (one, other):
        which.step([batch(seed=5)], Moment(0, 1, 10))
    assert all(torch.equal(a, b) for a, b in zip(one.trained().values(), other.trained().values(), strict=True))
    assert one.scaler.get_scale() == other.scaler.get_scale() == 2.0**12
    same(one.network, other.network, rtol=0, atol=0)


def test_a_single_picture_is_trained_with_the_running_statistics():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4),
                        nn.Linear(4, 3))  # fmt: skip
    plain = copy.deepcopy(net)
    one = batch(1)
    seen = learner(net, optimizer={"name": "sgd", "learningRate": 0.1, "momentum": 0.0}).step([one], Moment(0, 0, 10))
    assert seen[2].item() == 1
    plain.eval()
    nn.functional.cross_entropy(plain(one.pictures / 255), one.labels).backward()
    torch.optim.SGD(plain.parameters(), lr=0.1).step()
    same(net, plain)  # the failed attempt left no statistics either
    assert net.training


def test_a_single_picture_that_batch_norm_can_take_is_trained_as_ever():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    plain = copy.deepcopy(net)
    one = batch(1)
    learner(net, optimizer={"name": "sgd", "learningRate": 0.1, "momentum": 0.0}).step([one], Moment(0, 0, 10))
    nn.functional.cross_entropy(plain.train()(one.pictures / 255), one.labels).backward()
    torch.optim.SGD(plain.parameters(), lr=0.1).step()
    same(net, plain)
    assert net[1].num_batches_tracked == 1
