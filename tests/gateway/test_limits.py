"""Limits of devices as limits of the pool."""

import pytest
from gateway.test_devices import node, snapshot

from rfuav_gateway.tasks import devices, limits
from rfuav_gateway.tasks.bodies import Slots
from rfuav_gateway.tasks.devices import Counts, Fleet
from rfuav_gateway.tasks.limits import Limits
from rfuav_gateway.tasks.words import RefusedError
from rfuav_operator.core.model import GpuTier, PoolSpec

GIB = 2**30


def fleet() -> Fleet:
    """Two large GPUs, then two small ones."""
    tiers = (GpuTier(min_memory="22Gi", training=1, inference=3), GpuTier(min_memory="6Gi", training=1, inference=1))
    nodes = [node("a"), node("b", memory=8192)]
    return devices.fleet(snapshot(nodes, spec=PoolSpec(node_selector={"pool": "p"}, per_gpu=tiers)), "p")


def wanted(**named: tuple[int, int]) -> dict[str, Slots]:
    names = {key.replace("_", ":"): slots for key, slots in named.items()}
    return {name: Slots(training=training, inference=inference) for name, (training, inference) in names.items()}


def test_a_limit_of_a_device_is_that_of_its_kind():
    assert limits.limits(wanted(cuda_1=(2, 4)), fleet()) == Limits({22 * GIB: Counts(2, 4)})
    both = limits.limits(wanted(cuda_0=(2, 4), cuda_1=(2, 4), cuda_2=(0, 1)), fleet())
    assert both.tiers == {22 * GIB: Counts(2, 4), 6 * GIB: Counts(0, 1)}


def test_a_limit_of_cpu_is_shared_by_the_nodes():
    assert limits.limits(wanted(cpu=(4, 6)), fleet()) == Limits(per_node=Counts(2, 3))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (wanted(cuda_0=(1, 1), cuda_1=(1, 2)), "cuda:0 and cuda:1 are GPUs of the same kind"),
        (wanted(cuda_9=(1, 1)), "cuda:9 does not exist: write one of cuda:0, cuda:1, cuda:2, cuda:3, cpu"),
        (wanted(cpu=(3, 4)), "write multiples of 2"),
    ],
)
def test_what_a_pool_cannot_say_is_refused(asked, says):
    with pytest.raises(RefusedError, match=says):
        limits.limits(asked, fleet())


def test_other_tiers_and_fields_stay():
    held = {
        "perGPU": [{"minMemory": "22Gi", "training": 1, "inference": 3}, {"minMemory": "6Gi", "training": 1}],
        "placement": "Spread",
    }
    change = Limits({22 * GIB: Counts(2, 4)}, Counts(1, 1))
    assert limits.spec(change, held) == {
        "perGPU": [{"minMemory": "22Gi", "training": 2, "inference": 4}, {"minMemory": "6Gi", "training": 1}],
        "perNodeCPU": {"training": 1, "inference": 1},
    }


def test_gpus_below_every_tier_get_one():
    change = Limits({0: Counts(1, 1)})
    held = {"perGPU": [{"minMemory": "22Gi", "training": 1, "inference": 3}]}
    assert limits.spec(change, held)["perGPU"] == [*held["perGPU"], {"minMemory": 0, "training": 1, "inference": 1}]
