"""TrainingJobs of several nodes: all pods or none, on a node each, at the start and at every start after it."""

import pytest
from unit.core.builders import (
    after,
    foreign_pod,
    job,
    node,
    quota,
    run,
    snapshot,
    statuses,
    whole,
)
from unit.core.pairs import PAIR, cluster, gang

from rfuav_operator.core.model import CreatePod, Phase, Resources

# --- all or none


@pytest.mark.parametrize(
    ("size", "nodes", "foreign", "fits"),
    [
        (2, PAIR, [], True),
        (2, PAIR, [foreign_pod("x", "b", gpus=1)], False),
        (2, [whole("a", gpus=2)], [], False),  # a node each
        (3, [*PAIR, node("c")], [], True),
        (3, [*PAIR, whole("c", ready=False)], [], False),
        (2, [whole("a"), whole("b", cpu=1)], [], True),
        (2, [whole("a"), whole("b", cpu=0)], [], False),
    ],
)
def test_all_pods_or_none(size, nodes, foreign, fits):
    made = gang(nodes=size)
    done = run(snapshot([made], nodes=nodes, foreign=foreign))
    status = statuses(done)["gang"]
    assert (status.phase is Phase.ADMITTED) is fits
    assert len([a for a in done.actions if isinstance(a, CreatePod)]) == (size if fits else 0)
    assert [a.rank for a in status.assignments] == (list(range(size)) if fits else [])
    assert len({a.node for a in status.assignments}) == len(status.assignments)


def test_one_attempt_one_service_and_a_name_for_each_rank():
    done = run(snapshot([gang()], nodes=PAIR))
    status = statuses(done)["gang"]
    assert status.attempt == 1
    assert [a.pod.rsplit("-", 2)[1:] for a in status.assignments] == [["1", "0"], ["1", "1"]]
    services = [a.service for a in done.actions if isinstance(a, CreatePod)]
    assert len(services) == 2
    assert services[0] == services[1] is not None


@pytest.mark.parametrize(("nominal", "fits"), [(4, True), (3, False)])
def test_the_quota_is_for_all_its_pods_together(nominal, fits):
    made = gang(resources=Resources(gpus=2))
    nodes = [whole("a", gpus=2), whole("b", gpus=2)]
    done = statuses(run(snapshot([made], nodes=nodes, quotas=[quota(nominal=nominal, borrow=0)])))
    assert (done["gang"].phase is Phase.ADMITTED) is fits


def test_what_it_waits_for_in_words():
    done = statuses(run(snapshot([gang()], nodes=PAIR, foreign=[foreign_pod("x", "b", gpus=1)])))["gang"]
    assert done.reason == "WaitingForCapacity"
    assert done.message.startswith("needs 1 GPU on each of 2 nodes; pool default has 1 of 2 training slots free")
    assert "; 1 node of the 2 needed has room now" in done.message


def test_it_takes_nothing_while_it_waits():
    made = cluster(job("runs"), gang("gang", created=after(1)), job("late", created=after(2)))
    assert made.running() == {"runs", "late"}
