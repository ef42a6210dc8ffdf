"""What must hold after every event, judged on the server's truth: one function each, listed in OF_PODS, OF_STATUSES and
REQUESTS.

A function looks at one change (or one request as it arrives) and returns what is wrong with it, or None. A rule that
comes with a new feature is one more function in the list.
"""

import re
from collections.abc import Callable
from typing import Any

from simulation import volumes
from simulation.api import INIT, Target
from simulation.autoscaler import kept_off
from simulation.resource_quotas import GPUS, PODS, over
from simulation.server import JOBS, Change, Key, Object
from simulation.truth import (
    GPU,
    NOW,
    TERMINAL,
    Asked,
    Knowledge,
    Limits,
    Truth,
    asked,
    attempt_of,
    claims_devices,
    exit_code,
    label,
    made_for,
    owner_of,
    phase_of,
    unit_of,
    wanted_node,
)

from rfuav_operator.core.model import Assignment

Verdict = str | None

_PREEMPTED = re.compile(r"preempted by .* of priority -?\d+ over (-?\d+)")
# Not NodeUnsuited: a node may be none for a pod by what it is, as one with shared GPUs for a job of several.
_BY_THE_POOL = ("ScheduleTimeout", "StartTimeout", "ScaleUpTimeout", "PoolDrained", "Preempted")
_ALL = 10**6  # slots: more than any node has
_BEGINNING = ("InitContainerFailed", "ImagePullFailed", "StartTimeout", "ContainerFailed", "OutOfMemory")


def _is_new_pod_of_ours(truth: Truth, change: Change) -> bool:
    return (
        change.resource == "pods"
        and change.type == "ADDED"
        and truth.world.is_operator(change.author)
        and bool(owner_of(change.new))
    )


# --- pods


def recorded_before_created(truth: Truth, change: Change) -> Verdict:
    """A pod's attempt and assignment stand in status before the pod exists."""
    if not _is_new_pod_of_ours(truth, change):
        return None
    pod = change.new
    job, name = truth.job(owner_of(pod)), change.key[1]
    if job is None:
        return f"pod {name} belongs to no job that ever was"
    record = truth.assignment(owner_of(pod), name)
    if record is None:
        return f"pod {name} was created, and status.assignments does not name it"
    if (record.get("node") or "") != wanted_node(pod):
        return f"pod {name} goes to {wanted_node(pod)}, recorded was {record.get('node')}"
    recorded = attempt_of(job, label(pod, "shard") or None)
    if str(recorded) != label(pod, "attempt"):
        return f"pod {name} is of attempt {label(pod, 'attempt')}, recorded is {recorded}"
    return None


def nothing_is_made_for_what_has_ended(truth: Truth, change: Change) -> Verdict:
    """A create is not sent, or sent again, once the job's end is recorded."""
    if not _is_new_pod_of_ours(truth, change):
        return None
    phase = phase_of(truth.job(owner_of(change.new)))
    return f"pod {change.key[1]} was made for a job that is {phase}" if phase in TERMINAL else None


def within_the_limits(truth: Truth, change: Change) -> Verdict:
    """A new pod finds room: with all that lives on its node, and what was known of others, no limit is exceeded."""
    if not _is_new_pod_of_ours(truth, change) or not wanted_node(change.new):
        return None
    return _too_much(truth, wanted_node(change.new), [change.key[1]], [_use(change.new)])


def within_the_limits_where_it_lands(truth: Truth, change: Change) -> Verdict:
    """A pod that was admitted without a node finds room by our limits on the one that the scheduler gives it to.

    Unless the node is not for it even when empty, which the scheduler cannot know, or a pod of ours has just left it, whose
    place others had been given, or a pod of nobody's that counts by its kind, or closes the GPUs, runs there: then it is
    stopped as soon as it is seen.
    """
    if change.resource != "pods" or change.type != "MODIFIED" or not owner_of(change.new):
        return None
    if change.old is None or wanted_node(change.old) or not wanted_node(change.new):
        return None
    node, mine = wanted_node(change.new), _use(change.new)
    widest = truth.widest(node, truth.decided[change.key[1]])
    if any(own > limit for own, limit in zip(mine, widest, strict=True)):
        truth.misplaced[change.key] = change.new["metadata"]["uid"]
        return None
    wrong = _too_much(truth, node, [change.key[1]], [mine])
    others = truth.others_on(node, truth.decided[change.key[1]].pods)
    strays = [p for p in others if label(p, "kind") or claims_devices(p)]
    if wrong and (strays or node in kept_off(change.new)):
        truth.misplaced[change.key] = change.new["metadata"]["uid"]
        return None
    return wrong


def still_misplaced(truth: Truth) -> list[str]:
    """Pods that came where the limits had no room for them, still have none, and were not told to stop."""
    found = []
    for key, uid in truth.misplaced.items():
        pod = truth.server.get("pods", key)
        if pod is None or pod["metadata"]["uid"] != uid or not truth.live(pod):
            continue
        if not truth.may_judge(pod, NOW):
            continue
        over = _too_much(truth, wanted_node(pod), [key[1]], [_use(pod)])
        if over and not pod["metadata"].get("deletionTimestamp"):
            found.append(over)
    return found


def nobody_stays_where_it_is_not_for(truth: Truth, known: Knowledge, namespace: str, held: Assignment) -> Verdict:
    """A pod on a new node that is not for it, even when empty, is told to stop by the first decision that could know."""
    key = namespace, held.pod
    pod = truth.server.get("pods", key)
    if held.stopping or not held.node or pod is None or truth.misplaced.get(key) != pod["metadata"]["uid"]:
        return None
    told = pod["metadata"].get("deletionTimestamp") or exit_code(pod) is not None or not truth.live(pod)
    if told or truth.bound_at[pod["metadata"]["uid"]] > known.pods or not truth.may_judge(pod, known):
        return None
    widest = truth.widest(held.node, truth.decided[held.pod])
    over = [
        f"{w}: {own} of {most}" for w, own, most in zip(Limits._fields, _use(pod), widest, strict=True) if own > most
    ]
    return f"{held.pod} stays on {held.node}: {', '.join(over)}" if over else None


def nothing_goes_to_a_node_in_deletion(truth: Truth, change: Change) -> Verdict:
    """A Node that was in deletion for as long as the operator could know gets no new pod."""
    if not _is_new_pod_of_ours(truth, change) or not wanted_node(change.new):
        return None
    node = wanted_node(change.new)
    return f"{change.key[1]} goes to {node}, which goes" if truth.goes(node, truth.decided[change.key[1]]) else None


def within_the_resource_quota(truth: Truth, change: Change) -> Verdict:
    """Room is not taken for pods that the ResourceQuota of their namespace has no place for, as was known."""
    found = _decided(truth, change)
    added = _added(*found) if found is not None else []
    if not added:
        return None
    wanted = {PODS: len(added), GPUS: len(added) * int(change.new["spec"]["resources"]["gpus"])}
    since = truth.quotas_since(change.key[0], truth.decided[added[0]["pod"]])
    wrong = [over(held, wanted) for held in since]
    return f"{change.key[1]} takes room: {wrong[-1]}" if all(wrong) else None


def one_node_mounts_a_claim(truth: Truth, change: Change) -> Verdict:
    """A claim that one node mounts at a time is given to pods of ours on one node alone; one of one pod, to one."""
    if not _is_new_pod_of_ours(truth, change):
        return None
    pod, node = change.new, wanted_node(change.new)
    for claim in volumes.of_one_node(pod):
        for other in volumes.users(truth.world, change.key[0], claim):
            elsewhere = not node or wanted_node(other) != node
            if other is pod or not owner_of(other) or not (elsewhere or volumes.is_of_one_pod(claim)):
                continue
            where, there = wanted_node(other) or "no node", other["metadata"]["name"]
            return f"{change.key[1]} on {node or 'no node'} mounts {claim}, which {there} mounts on {where}"
    return None


def few_wait_for_a_node(truth: Truth, change: Change) -> Verdict:
    """Of a pool, at most as many jobs as its scaleUp lets have pods for which there is no node."""
    if not _is_new_pod_of_ours(truth, change) or wanted_node(change.new):
        return None
    pool = (truth.job(owner_of(change.new)) or {})["spec"]["pool"]
    said = truth.scale_up(pool, truth.decided[change.key[1]].gpupools)
    most, waiting = max((up["maxJobs"] for up in said), default=0), len(truth.without_node(pool))
    return f"with {change.key[1]} {waiting} jobs wait for a node, of at most {most}" if waiting > most else None


def nobody_gives_up_early(truth: Truth, change: Change) -> Verdict:
    """A pod for which no node came is given up at the timeout, not before."""
    found = _status_of_job(change)
    if found is None:
        return None
    before = {a["pod"]: a for a in found[0].get("assignments") or ()}
    for a in found[1].get("assignments") or ():
        pod = truth.server.get("pods", (change.key[0], a["pod"]))
        if a.get("stopping") != "ScaleUpTimeout" or before.get(a["pod"], {}).get("stopping") or pod is None:
            continue
        said = truth.scale_up(change.new["spec"]["pool"], truth.decided[a["pod"]].gpupools)
        least = min((up["timeoutSeconds"] for up in said), default=0)
        waited = truth.world.loop.time() - truth.world.seconds(pod["metadata"]["creationTimestamp"])
        if waited < least:
            return f"{a['pod']} was given up after {waited:.1f} s of {least}"
    return None


def room_is_free_when_it_is_taken(truth: Truth, change: Change) -> Verdict:
    """Room is not even recorded for a pod while pods of earlier attempts, or of others, may live in it."""
    found = _decided(truth, change)
    if found is None:
        return None
    by_node: dict[str, list[str]] = {}
    for assignment in _added(*found):
        if assignment.get("node"):
            by_node.setdefault(assignment["node"], []).append(assignment["pod"])
    for node, names in by_node.items():
        if wrong := _too_much(truth, node, names, [_use_of_job(change)] * len(names)):
            return wrong
    return None


def within_the_quota(truth: Truth, change: Change) -> Verdict:
    """A namespace never takes more of a pool than its quota lets it: its own and what it may borrow; jobs at a time."""
    found = _decided(truth, change)
    if found is None:
        return None
    added = [a["pod"] for a in _added(*found)]
    if not added:
        return None
    return _over_quota(truth, change.new, added, int(change.new["spec"]["resources"]["gpus"]) * len(added))


def within_the_quota_when_made(truth: Truth, change: Change) -> Verdict:
    """The same when the pod is made, which may be long after it was recorded."""
    if not _is_new_pod_of_ours(truth, change):
        return None
    job = truth.job(owner_of(change.new))
    return None if job is None else _over_quota(truth, job, [change.key[1]], asked(change.new).gpus)


def _over_quota(truth: Truth, job: Object, added: list[str], mine: int) -> Verdict:
    """With these pods of a job, and the GPUs that they ask for, beside all that live."""
    namespace, uid, pool = job["metadata"]["namespace"], job["metadata"]["uid"], job["spec"]["pool"]
    share = truth.share(namespace, pool, truth.decided[added[0]])
    live = [pod for pod in truth.ours_in(namespace, pool) if pod["metadata"]["name"] not in added]
    gpus = mine + sum(asked(pod).gpus for pod in live)
    if mine and gpus > share.gpus:
        return f"with {', '.join(added)} namespace {namespace} uses {gpus} of {share.gpus} GPUs"
    training = job["kind"] == "TrainingJob"
    most = share.training if training else share.inference
    jobs = {owner_of(pod) for pod in live if label(pod, "kind") == job["kind"]} | {uid}
    if len(jobs) > most and not any(owner_of(pod) == uid for pod in live):
        name = job["metadata"]["name"]
        return f"with {name} namespace {namespace} runs {len(jobs)} of {most} {job['kind']}s"
    return None


def nothing_is_admitted_on_hold(truth: Truth, change: Change) -> Verdict:
    """A pool that was on hold for as long as the operator could know takes nothing new."""
    found = _decided(truth, change)
    if found is None:
        return None
    added, pool = [a["pod"] for a in _added(*found)], change.new["spec"]["pool"]
    if added and truth.on_hold(pool, truth.decided[added[0]]):
        return f"{', '.join(added)} got room in pool {pool}, which is on hold"
    return None


def nothing_is_admitted_without_a_pool(truth: Truth, change: Change) -> Verdict:
    """A pool that was absent for as long as the operator could know takes nothing new."""
    found = _decided(truth, change)
    if found is None:
        return None
    added, pool = [a["pod"] for a in _added(*found)], change.new["spec"]["pool"]
    if added and truth.absent(pool, truth.decided[added[0]]):
        return f"{', '.join(added)} got room in pool {pool}, which does not exist"
    return None


def absence_stops_nobody(truth: Truth, change: Change) -> Verdict:
    """While a pool is absent none of its terms stops what was admitted to it: nothing runs out, nothing is drained."""
    found = _decided(truth, change)
    if found is None:
        return None
    before, pool = {a["pod"]: a for a in found[0].get("assignments") or ()}, change.new["spec"]["pool"]
    for a in found[1].get("assignments") or ():
        if a.get("stopping") not in _BY_THE_POOL or before.get(a["pod"], {}).get("stopping"):
            continue
        if truth.absent(pool, truth.stopped[a["pod"]]):
            return f"{a['pod']} was stopped ({a['stopping']}) by pool {pool}, which does not exist"
    return None


def gangs_are_whole(truth: Truth, change: Change) -> Verdict:
    """The pods of a job of several nodes are admitted together, each on a node of its own, or not at all.

    When one of them is given up, those that still run are told to stop in the same write.
    """
    found = _status_of_job(change)
    if found is None or change.resource != "trainingjobs":
        return None
    added, wanted = _added(*found), change.new["spec"].get("nodes", 1)
    going_on = [a["pod"] for a in found[1].get("assignments") or () if not a.get("stopping")]
    running = [pod for pod in going_on if pod not in truth.ended_at]
    if running and len(going_on) != wanted and phase_of(change.new) not in TERMINAL:
        return f"of the {wanted} pods of {change.key[1]} only {', '.join(running)} go on"
    nodes = {a["node"] for a in added if a.get("node")}
    if added and (len(added) != wanted or len(nodes) not in (0, wanted)):
        return f"{change.key[1]} of {wanted} nodes got {len(added)} pods on {len(nodes)} nodes"
    return None


def nothing_young_is_stopped_for_another(truth: Truth, change: Change) -> Verdict:
    """Only what has run for minRuntimeSeconds is preempted, and only in a pool that allows it."""
    found = _status_of_job(change)
    if found is None:
        return None
    before = {a["pod"]: a for a in found[0].get("assignments") or ()}
    policy = truth.world.script.setup["pool"].get("preemption", {})
    for a in found[1].get("assignments") or ():
        if a.get("stopping") != "Preempted" or before.get(a["pod"], {}).get("stopping"):
            continue
        if {policy.get("withinPool", "Never"), policy.get("reclaimBorrowed", "Never")} == {"Never"}:
            return f"{a['pod']} was preempted, and the pool does not allow it"
        since = truth.world.seconds(a["startedAt"]) if a.get("startedAt") else truth.world.loop.time()
        if truth.world.loop.time() - since < policy["minRuntimeSeconds"]:
            return f"{a['pod']} was preempted after {truth.world.loop.time() - since:.1f} s"
    return None


def _added(old: Object, new: Object) -> list[Object]:
    """Assignments that a status has and the one before had not."""
    before = {a["pod"] for a in old.get("assignments") or ()}
    return [a for a in new.get("assignments") or () if a["pod"] not in before]


def _too_much(truth: Truth, node: str, names: list[str], mine: list[Limits]) -> Verdict:
    if not truth.nodes[node]:
        return f"pod {names[0]} goes to {node}, which never was"
    knowledge = truth.decided[names[0]]
    ours = [pod for pod in truth.ours_on(node) if pod["metadata"]["name"] not in names]
    # A pod that waited for a new node may come to this one unasked, which nobody knew then.
    ours = [p for p in ours if not label(p, "scale-up") or truth.bound_at[p["metadata"]["uid"]] <= knowledge.pods]
    others = truth.others_on(node, knowledge.pods)
    used = _sum([*mine, *map(_use, ours), *map(_use, others)])
    over = [
        f"{what}: {now} of {limit}"
        for what, own, now, limit in zip(Limits._fields, _sum(mine), used, truth.widest(node, knowledge), strict=True)
        if own and now > limit
    ]
    return f"with {', '.join(names)} too much is in use on {node}: {', '.join(over)}" if over else None


def _use_of_job(change: Change) -> Limits:
    resources = change.new["spec"]["resources"]
    requests = {k: resources[k] for k in ("cpu", "memory")} | {GPU: str(resources["gpus"])}
    kind = "TrainingJob" if change.resource == "trainingjobs" else "InferenceJob"
    return _use_as(kind, asked({"spec": {"containers": [{"resources": {"requests": requests}}]}}))


def _use(pod: Object) -> Limits:
    used = _use_as(label(pod, "kind"), asked(pod))
    return used._replace(slots=_ALL) if claims_devices(pod) else used


def _use_as(kind: str, needs: Asked) -> Limits:
    """What counts of a pod by the kind that it is labelled with, whoever it belongs to: its GPUs, or one job without."""
    return Limits(
        training=needs.gpus * (kind == "TrainingJob"),
        inference=needs.gpus * (kind == "InferenceJob"),
        slots=needs.gpus,
        training_jobs=int(kind == "TrainingJob" and not needs.gpus),
        inference_jobs=int(kind == "InferenceJob" and not needs.gpus),
        cpu_milli=needs.cpu_milli,
        memory=needs.memory,
    )


def _sum(parts: list[Limits]) -> Limits:
    return Limits(*(sum(values) for values in zip(*parts, strict=True)))


def one_live_pod_a_unit(truth: Truth, change: Change) -> Verdict:
    """No pod of a job or shard is created while another may live."""
    if not _is_new_pod_of_ours(truth, change):
        return None
    others = _others_of_unit(truth, *unit_of(change.new), change.key[1])
    return f"pod {change.key[1]} was created while {', '.join(others)} may live" if others else None


def no_attempt_beside_another(truth: Truth, change: Change) -> Verdict:
    """A new attempt of a job or shard is not recorded while a pod of an earlier one may live."""
    found = _decided(truth, change)
    if found is None:
        return None
    for assignment in _added(*found):
        index = None if change.resource == "trainingjobs" else assignment.get("shard") or 0
        if others := _others_of_unit(truth, change.new["metadata"]["uid"], index, assignment["pod"]):
            return f"{assignment['pod']} was recorded while {', '.join(others)} may live"
    return None


def _others_of_unit(truth: Truth, uid: str, index: int | None, name: str) -> list[str]:
    """Live pods of earlier attempts: of the same shard, or of any node of a training."""
    names = (
        {a["pod"] for a in (truth.job(uid) or {}).get("status", {}).get("assignments") or ()}
        if index is None
        else set()
    )
    return [
        pod["metadata"]["name"]
        for pod in truth.server.all("pods")
        if pod["metadata"]["name"] != name
        and pod["metadata"]["name"] not in names
        and owner_of(pod) == uid
        and index in (None, unit_of(pod)[1])
        and truth.live(pod)
    ]


def one_writes_to_an_output(truth: Truth, change: Change) -> Verdict:
    """No pod of a job is made while one that was made for a job of its name, and is not its own, may still write there.

    Its job is gone, or it was orphaned, or a label was taken off.
    """
    if not _is_new_pod_of_ours(truth, change):
        return None
    key, job = change.key, label(change.new, "job")
    others = [
        pod["metadata"]["name"]
        for pod in truth.server.all("pods")
        if pod["metadata"]["namespace"] == key[0]
        and made_for(pod) == job
        and owner_of(pod) != owner_of(change.new)
        and truth.live(pod)
    ]
    return f"pod {key[1]} was created while {', '.join(others)} may write to its output" if others else None


def stopped_for_a_reason(truth: Truth, change: Change) -> Verdict:
    """The operator stops a live pod only of its own, and after status says why (or the job is over, or gone)."""
    if change.resource != "pods" or change.old is None or not truth.world.is_operator(change.author):
        return None
    name, uid = change.key[1], owner_of(change.old)
    if not uid:
        return None if truth.has_just_left(change.old) else f"pod {name} of somebody else was deleted"
    job = truth.job(uid)
    if job is None or uid in truth.last or phase_of(job) in TERMINAL:
        return None
    record = truth.assignment(uid, name)
    if record is not None and not record.get("stopping"):
        return f"pod {name} was deleted, and its assignment does not say why"
    return None


# --- statuses


def _decided(truth: Truth, change: Change) -> tuple[Object, Object] | None:
    """The status of a job before and after, when the operator wrote it."""
    return _status_of_job(change) if truth.world.is_operator(change.author) else None


def _status_of_job(change: Change) -> tuple[Object, Object] | None:
    if change.resource not in JOBS or change.old is None or change.type != "MODIFIED":
        return None
    return change.old.get("status") or {}, change.new.get("status") or {}


def terminal_stays(truth: Truth, change: Change) -> Verdict:
    """A job that has ended never moves again."""
    found = _status_of_job(change)
    if found is None or phase_of(change.old) not in TERMINAL:
        return None
    old, new = ({k: v for k, v in status.items() if k != "observedGeneration"} for status in found)
    changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    return f"{change.key[1]} has ended, yet its status changed: {', '.join(changed)}" if changed else None


def priorities_stay(truth: Truth, change: Change) -> Verdict:
    """The value of a job stays as it was admitted while a pod of it has room, whatever becomes of its PriorityClass.

    It stands in its status, and in the words with which it is preempted.
    """
    found = _status_of_job(change)
    if found is None or phase_of(change.new) not in ("Admitted", "Running"):
        return None
    old, new = found
    if len(_added(old, new)) == len(new["assignments"]):  # all are new: it has been in the queue
        return None
    if old.get("priority") != new.get("priority"):
        return f"{change.key[1]}: priority {new.get('priority')} after {old.get('priority')} while it is admitted"
    preempted = _PREEMPTED.search(new.get("message") or "")
    if preempted and new.get("message") != old.get("message") and int(preempted[1]) != old["priority"]:
        return f"{change.key[1]} of priority {old['priority']} was {preempted[0]}"
    return None


def attempts_only_grow(truth: Truth, change: Change) -> Verdict:
    """The attempt of a job never decreases, nor that of a shard until it is done."""
    found = _status_of_job(change)
    if found is None:
        return None
    old, new = found
    if (old.get("attempt") or 0) > (new.get("attempt") or 0):
        return f"{change.key[1]}: attempt {new.get('attempt')} after {old.get('attempt')}"
    before, after = ((status.get("shards") or {}).get("attempts") or {} for status in found)
    back = [shard for shard, attempt in before.items() if after.get(shard, attempt) < attempt]
    return f"{change.key[1]}: the attempt of shard {back[0]} moved back" if back else None


def progress_moves_forward(truth: Truth, change: Change) -> Verdict:
    """Sequence, percent and epoch never move back within an attempt."""
    found = _status_of_job(change)
    if found is None:
        return None
    old, new = found
    pairs = []
    if change.resource == "trainingjobs" and old.get("attempt") == new.get("attempt"):
        pairs.append((old.get("progress") or {}, new.get("progress") or {}))
    shards, later = old.get("shards") or {}, new.get("shards") or {}
    for shard, before in (shards.get("progress") or {}).items():
        same = (shards.get("attempts") or {}).get(shard) == (later.get("attempts") or {}).get(shard)
        if same and shard in (later.get("progress") or {}):
            pairs.append((before, later["progress"][shard]))
    for before, after in pairs:
        if before.get("sequence") is None:
            continue
        for part in ("sequence", "percent", "epoch", "processed"):
            if before.get(part) is not None and (after.get(part) is None or after[part] < before[part]):
                return f"{change.key[1]}: {part} {after.get(part)} after {before[part]} in the same attempt"
    return None


def results_stay_and_move_forward(truth: Truth, change: Change) -> Verdict:
    """Results that were reported once are in every later status, whole, and older ones do not come back."""
    found = _status_of_job(change)
    if found is None or change.resource != "trainingjobs":
        return None
    old, new = (status.get("results") for status in found)
    if new is None:
        return f"{change.key[1]} lost its results" if old is not None else None
    curve = new["history"]["epochs"]
    if old is not None and curve < old["history"]["epochs"]:
        return f"{change.key[1]} has older results again: {curve} after {old['history']['epochs']}"
    if ("classes" in new) != bool(curve[1] % 2):
        return f"{change.key[1]} has parts of two results: {new}"
    return None


def success_was_earned(truth: Truth, change: Change) -> Verdict:
    """A job succeeds, and a shard is done, only when a pod that it had assigned has succeeded."""
    found = _status_of_job(change)
    if found is None:
        return None
    old, _ = found
    if phase_of(change.new) == "Succeeded" != phase_of(change.old) and change.resource == "trainingjobs":
        names = {a["pod"] for a in old.get("assignments") or ()}
        if not names or names - truth.succeeded:
            return f"{change.key[1]} succeeded, and not all of its pods did"
    before, after = (_numbers((status.get("shards") or {}).get("completed", "")) for status in found)
    for shard in sorted(after - before):
        names = {a["pod"] for a in old.get("assignments") or () if a.get("shard") == shard}
        if not names & truth.succeeded:
            return f"{change.key[1]}: shard {shard} is done, and no pod of it succeeded"
    if before - after:
        return f"{change.key[1]}: shards {sorted(before - after)} were done and are not any more"
    return None


def what_ended_beside_it_is_not_charged(truth: Truth, change: Change) -> Verdict:
    """The trainer decides: a pod whose trainer has succeeded is no failure, whatever else in it has failed."""
    found = _status_of_job(change)
    if found is None:
        return None
    before = {failure["pod"] for failure in found[0].get("failures") or ()}
    for failure in found[1].get("failures") or ():
        beside = failure["reason"] in ("ContainerFailed", "SidecarFailed", "Completed")
        if failure["pod"] not in before and beside and failure["pod"] in truth.succeeded:
            return f"{failure['pod']} is taken for failed, and its trainer succeeded: {failure['message']}"
    return None


def outages_are_not_charged(truth: Truth, change: Change) -> Verdict:
    """An image that is not there counts against its job; a registry that is away does not."""
    found = _status_of_job(change)
    if found is None:
        return None
    before = {failure["pod"] for failure in found[0].get("failures") or ()}
    fates, _ = truth.world.fates.get(change.new["metadata"]["uid"], ([], 0.0))
    for failure in found[1].get("failures") or ():
        if failure["pod"] in before or failure["reason"] != "ImagePullFailed" or not failure.get("counted"):
            continue
        index = failure["attempt"] - 1 + failure.get("shard", 0)
        if index >= len(fates) or fates[index] not in ("image", "hiccup"):
            return f"{failure['pod']} is charged with a registry that was away"
    return None


def what_comes_before_the_trainer_is_named_and_not_charged(truth: Truth, change: Change) -> Verdict:
    """A container that must end first, and that the job did not ask for: it is named, and costs the job nothing."""
    found = _status_of_job(change)
    if found is None or truth.world.healed:
        return None
    before = {failure["pod"] for failure in found[0].get("failures") or ()}
    fates, _ = truth.world.fates.get(change.new["metadata"]["uid"], ([], 0.0))
    for failure in found[1].get("failures") or ():
        index = failure["attempt"] - 1 + failure.get("shard", 0)
        fate = fates[index] if index < len(fates) else ""
        if failure["pod"] in before or not fate.startswith("init:") or failure["reason"] not in _BEGINNING:
            continue
        if failure.get("counted"):
            return f"{failure['pod']} is charged with {fate}: {failure['message']}"
        if (
            fate != "init:slow"
            and INIT["name"] not in failure["message"]
            and _showed_its_beginning(truth, (change.key[0], failure["pod"]))
        ):
            return f"{failure['pod']} met {fate}, and nothing is said of {INIT['name']}: {failure['message']}"
    return None


def _showed_its_beginning(truth: Truth, pod: Key) -> bool:
    """Whether who told the pod to stop could know of its init container: its machine may be off before it says so."""
    known = truth.stopped.get(pod[1])
    return any(
        written.key == pod
        and (known is None or written.version <= known.pods)
        and any(container["state"] for container in written.new.get("status", {}).get("initContainerStatuses") or ())
        for written in truth.server.log["pods"]
    )


def taken_reports_arrive(truth: Truth, change: Change) -> Verdict:
    """What a pod was told is taken stands in the status when its job succeeds, if the same process writes it."""
    found = _status_of_job(change)
    if found is None or change.resource != "trainingjobs" or phase_of(change.old) == phase_of(change.new):
        return None
    old, new = found
    if phase_of(change.new) != "Succeeded":
        return None
    writer, stored = truth.world.process_of(change.author), (new.get("progress") or {}).get("sequence", -1)
    for assignment in old.get("assignments") or ():
        end = truth.ended_at.get(assignment["pod"], 0.0)
        for at, sequence, taker in truth.taken[assignment["pod"]]:
            if taker is writer and at < end and sequence > stored:
                return f"{change.key[1]}: report {sequence} was taken, and its status ends with {stored}"
    return None


def _numbers(ranges: str) -> set[int]:
    found: set[int] = set()
    for part in filter(None, ranges.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


Check = Callable[[Truth, Change], Verdict]

OF_PODS: list[Check] = [
    recorded_before_created,
    nothing_is_made_for_what_has_ended,
    within_the_limits,
    within_the_limits_where_it_lands,
    nothing_goes_to_a_node_in_deletion,
    one_node_mounts_a_claim,
    few_wait_for_a_node,
    within_the_quota_when_made,
    one_live_pod_a_unit,
    one_writes_to_an_output,
    stopped_for_a_reason,
]
OF_STATUSES: list[Check] = [
    within_the_resource_quota,
    nobody_gives_up_early,
    room_is_free_when_it_is_taken,
    within_the_quota,
    nothing_is_admitted_on_hold,
    nothing_is_admitted_without_a_pool,
    absence_stops_nobody,
    gangs_are_whole,
    nothing_young_is_stopped_for_another,
    no_attempt_beside_another,
    terminal_stays,
    priorities_stay,
    attempts_only_grow,
    progress_moves_forward,
    success_was_earned,
    what_ended_beside_it_is_not_charged,
    outages_are_not_charged,
    what_comes_before_the_trainer_is_named_and_not_charged,
    taken_reports_arrive,
    results_stay_and_move_forward,
]
CHANGES: dict[str, list[Check]] = {
    "pods": OF_PODS,
    **dict.fromkeys(JOBS, OF_STATUSES),
}  # by the resource that was written


# --- requests


def statuses_are_locked(truth: Truth, process: str, method: str, target: Target, body: Any) -> Verdict:
    """A job's status is written over the version that was read, or not at all."""
    if method == "PATCH" and target.resource in JOBS and not (body.get("metadata") or {}).get("resourceVersion"):
        return f"status of {target.name} was written without resourceVersion"
    return None


def the_leader_alone_writes(truth: Truth, process: str, method: str, target: Target, body: Any) -> Verdict:
    """Nothing of a process arrives after another has taken the lease."""
    if method == "GET" or target.resource in ("leases", "events"):
        return None
    release = truth.world.release_of(process)
    for lease in truth.server.all("leases"):
        holder, namespace = lease["spec"].get("holderIdentity"), lease["metadata"]["namespace"]
        if namespace == release:
            mine = process
        elif namespace == "kube-system":
            mine = f"{release}/{lease['metadata']['name']}"
        else:
            continue
        if holder not in ("", mine):
            return f"{process} wrote {target.resource} {target.name} while {holder} holds the lease"
    return None


REQUESTS: list[Callable[[Truth, str, str, Target, Any], Verdict]] = [statuses_are_locked, the_leader_alone_writes]
