"""Gradients of several processes: those of one process with the whole batch, sent while the backward pass runs."""

from datetime import timedelta
from unittest import mock

import pytest
import torch
from torch import distributed, nn
from torch.utils.checkpoint import checkpoint
from trainer.trainer_kit import in_children

from rfuav_crds.training import TrainingLoop
from rfuav_trainer.data.batches import Batch
from rfuav_trainer.data.samples import Preprocessing
from rfuav_trainer.distributed import gradients
from rfuav_trainer.distributed.process_group import World
from rfuav_trainer.errors import InvalidConfigurationError
from rfuav_trainer.training.learner import Learner, Moment

CPU = torch.device("cpu")
PLAIN = Preprocessing("image", 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
SGD = {"name": "sgd", "learningRate": 0.1}
GROUPS = ([7], [1], [2, 1], [5, 4, 3], [4, 1], [2, 0])
"""Batches of a step, by their samples: one process has none of the last in [1], [2, 1] and [4, 1]."""


@pytest.fixture
def store(tmp_path):
    """A file by which processes find each other."""
    return str(tmp_path / "store")


def joined(store, rank, size=2):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        store=distributed.FileStore(store, size),
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=60),
    )
    return World(rank, size)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3)
    )


def normalised(seed=0):
    found = network(seed)
    found.insert(1, nn.BatchNorm2d(4))
    return found


class Choosing(nn.Module):
    """Which of two layers it passes depends on the samples, so processes may leave out different weights."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.odd, self.even = nn.Linear(144, 3), nn.Linear(144, 3)

    def forward(self, pictures):
        inside = self.norm(self.first(pictures)).flatten(1)
        return torch.stack(
            [
                (self.odd if picture.sum().item() > 96 else self.even)(row)
                for picture, row in zip(pictures, inside, strict=True)
            ]
            or [self.odd(inside)[:0].sum(0).expand(3)]
        )[: len(pictures)]


def learner(net, world, **fields):
    training = TrainingLoop.model_validate({"epochs": 5, "optimizer": SGD, **fields})
    number_format = fields.get("precision", "fp32")
    with mock.patch.object(gradients, "LEAST_BYTES", 1):  # several buckets, small as the network is
        return Learner(
            training, net, device=CPU, number_format=number_format, preprocessing=PLAIN, world=world, weights=None
        )


def group(sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = []
    for size in sizes:
        pictures = torch.randint(0, 256, (size, 3, 8, 8), generator=generator, dtype=torch.uint8)
        found.append(Batch([None] * size, pictures, torch.randint(0, 3, (size,), generator=generator)))
    return found


def part(batch, world):
    mine = slice(world.rank, None, world.size)
    return Batch(batch.samples[mine], batch.pictures[mine], batch.labels[mine])


def gradients_of(net):
    return {name: parameter.grad.clone() for name, parameter in net.named_parameters()}


def equals_whole(rank, store, build):
    """Take the steps of GROUPS with half of every batch, and compare with a learner that has all of it."""
    world = joined(store, rank)
    ours, whole = build(), build()
    mine, alone = learner(ours, world), learner(whole, World())
    assert len(mine.gradients._buckets) >= 3
    for step, sizes in enumerate(GROUPS):
        batches = group(sizes, step)
        seen = mine.step([part(batch, world) for batch in batches], Moment(0, step, 10))
        expected = alone.step(batches, Moment(0, step, 10))
        torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-4)
        for name, value in gradients_of(alone.network).items():
            torch.testing.assert_close(gradients_of(mine.network)[name], value, rtol=1e-3, atol=1e-5)
    weights = torch.cat([value.double().flatten() for value in mine.network.state_dict().values()])
    theirs = [torch.empty_like(weights) for _ in range(world.size)]
    distributed.all_gather(theirs, weights)
    assert torch.equal(*theirs)
    assert not torch.equal(weights, torch.cat([v.double().flatten() for v in build().state_dict().values()]))


@pytest.mark.parametrize("build", [network, normalised])
def test_gradients_are_those_of_the_whole_batch_and_both_processes_have_the_same_bits(store, build):
    assert in_children(2, equals_whole, store, build) == [0, 0]


def chooses(rank, store):
    world = joined(store, rank)
    mine, alone = learner(Choosing(), world), learner(Choosing(), World())
    pictures = torch.zeros(8, 3, 8, 8, dtype=torch.uint8)
    pictures[1::2] = torch.randint(200, 256, (4, 3, 8, 8), dtype=torch.uint8)  # process 1 has the bright ones
    pictures += torch.arange(8, dtype=torch.uint8).reshape(8, 1, 1, 1)
    whole = Batch([None] * 8, pictures, torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]))
    torch.manual_seed(5)
    whole.pictures[1::2] = torch.randint(200, 240, (4, 3, 8, 8), dtype=torch.uint8)
    mine.step([part(whole, world)], Moment(0, 0, 10))
    alone.step([whole], Moment(0, 0, 10))
    for name, value in gradients_of(alone.network).items():
        torch.testing.assert_close(gradients_of(mine.network)[name], value, rtol=1e-3, atol=1e-5)
    assert gradients_of(mine.network)["odd.weight"].any()
    assert gradients_of(mine.network)["even.weight"].any()


def test_processes_may_leave_out_different_weights(store):
    assert in_children(2, chooses, store) == [0, 0]


def watched(rank, store):
    """The order of messages and layers in a step of three batches."""
    world = joined(store, rank)
    net = network()
    mine = learner(net, world)
    own, events, whole = mine.gradients._group, [], distributed.all_reduce

    def sent(values, group=None, **named):
        if group is own:
            events.append("sent")
        return whole(values, group=group, **named)

    net[0].register_full_backward_pre_hook(lambda *_: events.append("first layer"))
    with mock.patch.object(distributed, "all_reduce", sent):
        mine.step([part(batch, world) for batch in group([6, 6, 6])], Moment(0, 0, 10))
    buckets = len(mine.gradients._buckets)
    assert events.count("sent") == buckets  # once a step, not once a batch
    assert events[:3] == ["first layer", "first layer", "sent"]  # none in the first two batches
    assert events.index("sent") < events.index("first layer", 2)  # and the last layers before the first is reached
    assert events[-1] == "sent"


def test_gradients_are_sent_once_a_step_and_before_its_backward_pass_has_ended(store):
    assert in_children(2, watched, store) == [0, 0]


class Twice(nn.Module):
    """Passes one layer twice, each in a part of the backward pass of its own."""

    def __init__(self, *, reentrant):
        super().__init__()
        torch.manual_seed(0)
        self.reentrant, self.first, self.last = reentrant, nn.Linear(192, 192), nn.Linear(192, 3)

    def forward(self, pictures):
        inside = pictures.flatten(1).requires_grad_()
        for _ in range(2):
            inside = checkpoint(self.first, inside, use_reentrant=self.reentrant)
        return self.last(inside)


def recomputes(rank, store):
    world = joined(store, rank)
    mine, alone = learner(Twice(reentrant=False), world), learner(Twice(reentrant=False), World())
    batches = group([6])
    mine.step([part(batch, world) for batch in batches], Moment(0, 0, 10))
    alone.step(batches, Moment(0, 0, 10))
    for name, value in gradients_of(alone.network).items():
        torch.testing.assert_close(gradients_of(mine.network)[name], value, rtol=1e-3, atol=1e-5)
    with pytest.raises(InvalidConfigurationError, match="use_reentrant=False"):
        learner(Twice(reentrant=True), world).step([part(batch, world) for batch in batches], Moment(0, 0, 10))


def test_a_gradient_in_several_parts_is_refused_and_not_sent_too_early(store):
    assert in_children(2, recomputes, store) == [0, 0]


def half(rank, store):
    """The scale that fp16 settles at, in two processes and in one."""
    world = joined(store, rank)
    scales = []
    for which in (world, World()):
        one = learner(network(), which, precision="fp16", optimizer={"name": "sgd", "learningRate": 0.001})
        for step in range(4):
            batches = group([256], step)
            one.step(batches if which.size == 1 else [part(batch, which) for batch in batches], Moment(0, step, 10))
        scales.append(one.scaler.get_scale())
    assert scales[0] == scales[1]


def test_fp16_scales_the_losses_of_several_processes_as_that_of_one(store):
    """A loss that is the sum of its samples would overflow at a lower scale, which looks like a training that diverged."""
    assert in_children(2, half, store) == [0, 0]


def test_buckets_take_every_weight_once_from_the_last_to_the_first():
    weights = [nn.Parameter(torch.zeros(300_000)) for _ in range(5)]
    weights.insert(2, nn.Parameter(torch.zeros(10, dtype=torch.float64)))
    found = gradients._cut(weights)
    assert [p for bucket in found for p in bucket.parameters] == weights[::-1]
    assert [len(bucket.parameters) for bucket in found] == [1, 1, 1, 1, 1, 1]
    small = [nn.Parameter(torch.zeros(1000)) for _ in range(1000)]
    assert len(gradients._cut(small)) == 4


def test_a_gradient_has_the_layout_of_its_weight():
    net = network().to(memory_format=torch.channels_last)
    with mock.patch.object(distributed, "new_group", return_value=None):
        own = gradients.Gradients(net)
    own.begin()
    assert all(p.grad.stride() == p.stride() for p in net.parameters())
    assert not net[2].weight.is_contiguous()
    first = [p.grad for p in net.parameters()]
    net(torch.rand(2, 3, 8, 8)).sum().backward()
    assert all(p.grad is g for p, g in zip(net.parameters(), first, strict=True))
    own.release()
    assert all(p.grad is None for p in net.parameters())
