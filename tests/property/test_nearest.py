"""Reserved rooms: the shortcut, which compares few rooms, finds the same nodes as a comparison of all."""

from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st
from unit.core.builders import node, pool

from rfuav_operator.core.admission import reservations
from rfuav_operator.core.capacity.placement import PoolCapacity
from rfuav_operator.core.capacity.room import Allocation, Shape, room_of
from rfuav_operator.core.model import Kind, NodeName, PerNodeCpu, Uid
from rfuav_operator.core.quantity import Amounts

GI = 2**30
amounts = st.builds(
    Amounts,
    slots=st.integers(0, 2),
    cpu_milli=st.sampled_from([0, 500, 1000, 3000]),
    memory=st.sampled_from([0, GI, 3 * GI]),
    pods=st.just(1),
)
held = st.builds(
    Allocation,
    kind=st.sampled_from(Kind),
    namespace=st.just("team"),
    pool=st.just("default"),
    node=st.just("there"),
    requests=amounts,
    alone=st.sampled_from([False, False, False, True]),
)
names = st.sampled_from("abcdef")
shapes = st.builds(
    Shape,
    kind=st.sampled_from(Kind),
    requests=amounts,
    gpu_memory=st.just(0),
    nodes=st.integers(1, 3),
    avoided=st.frozensets(names, max_size=2),
)


@settings(max_examples=500, derandomize=True, deadline=None)
@given(
    there=st.dictionaries(names, st.lists(held, max_size=4), min_size=1),
    per_node=st.builds(PerNodeCpu, training=st.integers(0, 2), inference=st.integers(0, 2)),
    kept=st.sets(names, max_size=2),
    shape=shapes,
)
def test_the_shortcut_finds_the_nearest(there, per_node, kept, shape):
    of = pool(per_node_cpu=per_node)
    rooms = {
        NodeName(name): room_of(
            node(name, gpus=2, slots=4, cpu=4, memory_gi=4),
            of.spec,
            holders={(Uid(f"uid-{i}"), f"pod-{i}"): one for i, one in enumerate(several)},
        )
        for name, several in there.items()
    }
    capacity = PoolCapacity(of, rooms)
    free = [room for room in capacity.suits(shape) if room.node.name not in kept]
    wanted = sorted(free, key=lambda room: (reservations._missing(room, shape), room.node.name))[: shape.nodes]
    plan = SimpleNamespace(capacity=capacity, kept=dict.fromkeys(kept))
    assert reservations._nearest(plan, shape, {}) == wanted
