"""Preemption tries rooms out with `Headroom`, a light twin of `Room`: whatever is on the node, both say the same."""

from hypothesis import given, settings
from hypothesis import strategies as st
from unit.core.builders import foreign_pod, node, pool

from rfuav_operator.core.capacity.room import Allocation, Room, Shape, cpu_jobs, tier_of
from rfuav_operator.core.model import Kind, PerNodeCpu, Uid
from rfuav_operator.core.preemption.feasibility import Headroom
from rfuav_operator.core.quantity import Amounts

many = settings(max_examples=500, derandomize=True, deadline=None)

GI = 2**30
nodes = st.builds(
    node,
    gpus=st.integers(0, 3),
    slots=st.integers(0, 6),
    memory_mib=st.sampled_from([None, 8000, 12288, 24000]),
    cpu=st.integers(1, 6),
    memory_gi=st.integers(1, 6),
    pods=st.integers(0, 6),
    gpu_problem=st.sampled_from(["", "", "", "no device plugin"]),
)
limits = st.builds(PerNodeCpu, training=st.integers(0, 3), inference=st.integers(0, 3))
amounts = {
    "kind": st.sampled_from(Kind),
    "requests": st.builds(
        Amounts,
        slots=st.integers(0, 3),
        cpu_milli=st.sampled_from([0, 500, 1000, 3000]),
        memory=st.sampled_from([0, GI, 3 * GI]),
        pods=st.just(1),
    ),
}
held = st.builds(Allocation, namespace=st.just("team"), pool=st.just("default"), node=st.just("n1"), **amounts)
shapes = st.builds(Shape, gpu_memory=st.just(0), **amounts)


@many
@given(
    of=nodes,
    per_node=limits,
    there=st.lists(st.tuples(held, st.booleans()), max_size=6),  # beyond what fits, too: limits may shrink
    foreign=st.integers(0, 2),
    shape=shapes,
)
def test_the_headroom_fits_exactly_when_the_room_lacks_nothing(of, per_node, there, foreign, shape):
    spec = pool(per_node_cpu=per_node).spec
    holders = {(Uid(f"uid-{i}"), f"pod-{i}"): one for i, (one, _) in enumerate(there)}
    others = [foreign_pod(f"x{i}", "n1", gpus=1, cpu=1) for i in range(foreign)]
    tier, jobs = tier_of(of, spec.per_gpu), cpu_jobs(spec)
    room = Room(node=of, tier=tier, cpu_jobs=jobs, holders=holders, foreign=others)
    gone = [key for key, (_, goes) in zip(holders, there, strict=True) if goes]
    headroom = Headroom.of(room, (holders[key] for key in gone))
    assert headroom.fits(shape) == (not room.without(gone).lacks(shape))
    for key in gone:  # as if they were there again
        headroom.give_back(holders[key], -1)
    assert headroom == Headroom.of(room)
    assert headroom.fits(shape) == (not room.lacks(shape))
