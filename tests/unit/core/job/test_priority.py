"""Who may name which PriorityClass, and what a class is worth once a job is admitted."""

import pytest
from msgspec.structs import replace
from unit.core.builders import (
    CLASSES,
    DEFAULTS,
    PREEMPTION,
    admitted,
    after,
    job,
    of_type,
    pod_of,
    pool,
    run,
    snapshot,
    statuses,
    whole,
)

from rfuav_operator.core.job import podspec, priority
from rfuav_operator.core.model import (
    DeletePod,
    Kind,
    LabelRequirement,
    Namespace,
    NamespaceSelector,
    Phase,
    PodPhase,
    PriorityAccess,
    PriorityClass,
)

CRITICAL = PriorityClass(name="system-node-critical", value=2_000_001_000)
KNOWN = {
    **CLASSES,
    CRITICAL.name: CRITICAL,
    "rfuav-training": PriorityClass(name="rfuav-training", value=1000),
    "rfuav-inference": PriorityClass(name="rfuav-inference", value=2000),
}
TEAM = Namespace(name="team", labels={"kubernetes.io/metadata.name": "team", "tier": "gold"})


def labels(**wanted):
    return NamespaceSelector(match_labels={key.replace("_", "-"): value for key, value in wanted.items()})


def where(key, operator, *values):
    return NamespaceSelector(match_expressions=(LabelRequirement(key=key, operator=operator, values=values),))


def outcome(name, access=None, *, kind=Kind.TRAINING, namespaces=(TEAM,), known=None, defaults=DEFAULTS):
    """Phase, reason and message of one job that names the class."""
    seen = snapshot(
        [job(kind=kind, priority_class_name=name)],
        nodes=[whole()],
        pools=[pool(priority_classes=access)],
        priority_classes=KNOWN if known is None else known,
        namespaces=namespaces,
        defaults=defaults,
    )
    status = statuses(run(seen))["a"]
    return status.phase, status.reason, status.message


@pytest.mark.parametrize(
    ("name", "may"),
    [
        ("", True),
        ("low", True),
        ("rfuav-inference", True),  # the highest that the chart installs
        ("high", False),
        ("system-node-critical", False),
    ],
)
def test_without_a_list_nobody_goes_above_what_the_chart_installs(name, may):
    phase, reason, _ = outcome(name)
    assert (phase is Phase.ADMITTED) is may
    assert may or reason == "Misconfigured"


def test_the_ceiling_is_that_of_the_installed_classes():
    raised = {**KNOWN, "rfuav-inference": PriorityClass(name="rfuav-inference", value=9000)}
    assert outcome("high", known=raised)[0] is Phase.ADMITTED
    none = {"high": CLASSES["high"], "mid": CLASSES["mid"]}  # the chart installed none: the settings have the values
    assert outcome("mid", known=none)[0] is Phase.ADMITTED
    assert outcome("high", known=none)[0] is Phase.QUEUED
    assert outcome("high", known=none, defaults=replace(DEFAULTS, inference_priority=9000))[0] is Phase.ADMITTED


@pytest.mark.parametrize(
    ("access", "name", "may"),
    [
        ((), "low", False),  # an empty list allows no class
        ((), "", True),  # but that of the kind
        ((), "rfuav-training", True),
        ((), "rfuav-inference", False),
        ((PriorityAccess(names=("high",)),), "high", True),
        ((PriorityAccess(names=("high",)),), "low", False),  # the list is the whole truth
        ((PriorityAccess(ceiling=9000),), "high", True),
        ((PriorityAccess(ceiling=8999),), "high", False),
        ((PriorityAccess(names=("mid",)), PriorityAccess(ceiling=10)), "low", True),  # entries add up
        ((PriorityAccess(names=("high",), namespace_selector=labels(tier="gold")),), "high", True),
        ((PriorityAccess(names=("high",), namespace_selector=labels(tier="lead")),), "high", False),
        ((PriorityAccess(names=("high",), namespace_selector=NamespaceSelector()),), "high", True),
        (
            (PriorityAccess(ceiling=9000, namespace_selector=where("kubernetes.io/metadata.name", "In", "x", "team")),),
            "high",
            True,
        ),
        ((PriorityAccess(ceiling=9000, namespace_selector=where("tier", "NotIn", "gold")),), "high", False),
        ((PriorityAccess(ceiling=9000, namespace_selector=where("other", "NotIn", "gold")),), "high", True),
        ((PriorityAccess(ceiling=9000, namespace_selector=where("tier", "Exists")),), "high", True),
        ((PriorityAccess(ceiling=9000, namespace_selector=where("tier", "DoesNotExist")),), "high", False),
        ((PriorityAccess(ceiling=9000, namespace_selector=where("tier", "Like", "gold")),), "high", False),
    ],
)
def test_a_pool_lists_who_may_name_which_class(access, name, may):
    phase, reason, message = outcome(name, access)
    assert (phase is Phase.ADMITTED) is may
    assert may or (reason == "Misconfigured" and "leave it empty" in message)


@pytest.mark.parametrize("selector", [labels(tier="gold"), where("tier", "NotIn", "x"), NamespaceSelector()])
def test_a_namespace_that_was_not_read_is_not_selected(selector):
    access = (PriorityAccess(names=("high",), namespace_selector=selector),)
    assert outcome("high", access, namespaces=())[:2] == (Phase.QUEUED, "Misconfigured")


def test_the_job_says_what_to_write_instead():
    _, _, message = outcome("system-node-critical")
    assert "system-node-critical (2000001000) is above 2000" in message
    assert message.endswith("leave it empty or write one of: low, mid, rfuav-inference, rfuav-training")
    access = (PriorityAccess(names=("mid",)),)
    _, _, message = outcome("high", access)
    assert "not allowed for namespace team in pool default" in message
    assert message.endswith("leave it empty or write one of: mid")


def test_no_pod_carries_a_priority_class_whatever_its_template_says():
    made = admitted(job(raw={"podTemplate": {"priorityClassName": "system-node-critical", "priority": 9}}))[0]
    spec = podspec.manifest(made, made.status.assignments[0], DEFAULTS)["spec"]
    assert not {"priorityClassName", "priority"} & set(spec)


# --- what is recorded counts


def running(owner, **rest):
    held = [replace(a, started_at=after(0)) for a in owner.status.assignments]
    owner = replace(owner, status=replace(owner.status, phase=Phase.RUNNING, assignments=tuple(held)))
    return owner, pod_of(owner, phase=PodPhase.RUNNING, **rest)


def test_the_value_is_recorded_with_the_admission():
    (made,) = admitted(job(priority_class_name="mid"))
    assert made.status.priority == 500
    (made,) = admitted(job(kind=Kind.INFERENCE))
    assert made.status.priority == DEFAULTS.inference_priority


@pytest.mark.parametrize("known", [{"low": CLASSES["low"]}, {**CLASSES, "high": PriorityClass(name="high", value=1)}])
def test_a_running_job_keeps_its_priority_when_its_class_is_deleted_or_made_again(known):
    one = [whole(gpus=1)]
    (made,) = admitted(job(priority_class_name="high"), nodes=one)
    made, its_pod = running(made)
    late = job("late", namespace="team", priority_class_name="low", created=after(5))
    seen = snapshot(
        [made, late], pods=[its_pod], nodes=one, pools=[pool(preemption=PREEMPTION)], priority_classes=known
    )
    done = run(seen, now=after(600))
    assert statuses(done)["late"].reason == "WaitingForCapacity"
    assert not of_type(done, DeletePod)


def test_a_job_that_queues_again_has_the_value_of_its_class_as_it_is_now():
    (made,) = admitted(job(priority_class_name="high"))
    queued = replace(made, status=replace(made.status, phase=Phase.QUEUED, assignments=()))
    assert priority.priority(queued, snapshot(priority_classes={**CLASSES, "high": CLASSES["low"]})) == 10
    status = statuses(run(snapshot([queued], priority_classes={})))["a"]
    assert (status.phase, status.reason) == (Phase.QUEUED, "Misconfigured")
    assert "PriorityClass high does not exist" in status.message


def test_one_that_was_admitted_before_values_were_recorded_has_that_of_its_kind_when_its_class_is_gone():
    (made,) = admitted(job(priority_class_name="high"))
    old = replace(made, status=replace(made.status, priority=None))
    assert priority.priority(old, snapshot()) == 9000
    assert priority.priority(old, snapshot(priority_classes={})) == DEFAULTS.training_priority


def test_further_shards_of_a_job_go_on_under_the_terms_of_its_admission():
    made = job(kind=Kind.INFERENCE, shards=3, parallelism=3, priority_class_name="high")
    (made,) = admitted(made, nodes=[whole(gpus=1)])
    assert len(made.status.assignments) == 1
    pods = [pod_of(made)]
    seen = snapshot([made], pods=pods, nodes=[whole(gpus=4)], pools=[pool(priority_classes=())], priority_classes={})
    status = statuses(run(seen))["a"]
    assert len(status.assignments) == 3
    assert status.priority == 9000


@pytest.mark.parametrize("namespaces", [(), (Namespace(name="team", labels={}),)])
def test_a_running_job_continues_when_no_selector_matches_its_namespace_any_more(namespaces):
    access = (PriorityAccess(ceiling=2**31 - 1, namespace_selector=labels(tier="gold")),)
    limits = {"nodes": [whole(gpus=1)], "pools": [pool(priority_classes=access, preemption=PREEMPTION)]}
    (made,) = admitted(job(priority_class_name="high"), namespaces=[TEAM], **limits)
    made, its_pod = running(made)
    late = job("late", priority_class_name="low", created=after(5))
    done = run(snapshot([made, late], pods=[its_pod], namespaces=namespaces, **limits), now=after(600))
    assert not of_type(done, DeletePod)
    assert statuses(done).get("a", made.status).phase is Phase.RUNNING
    assert statuses(done)["late"].reason == "Misconfigured"


@pytest.mark.parametrize("known", [KNOWN, CLASSES])
def test_jobs_without_a_class_keep_their_order_when_the_default_classes_are_deleted(known):
    first, second = job("t"), job("i", kind=Kind.INFERENCE, created=after(5))
    told = statuses(run(snapshot([first, second], nodes=[whole(gpus=1)], priority_classes=known)))
    assert {n: s.phase for n, s in told.items()} == {"i": Phase.ADMITTED, "t": Phase.QUEUED}
