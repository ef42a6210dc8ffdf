"""What users do: jobs, and pods of their own. Rows of the table of deeds."""

from hashlib import sha256
from typing import TYPE_CHECKING, Any

from simulation.deeds import a_job, a_node, deed, one_of, seconds, some, space, whole
from simulation.kubelet import FATES
from simulation.scheduler import is_left_alone
from simulation.server import JOBS, Key, Object
from simulation.truth import attempt_of, is_live_phase, owner_of, phase_of, wanted_node
from simulation.volumes import EXTRA, template

if TYPE_CHECKING:
    from simulation.world import World

USER = "user"
OTHERS = "others"  # the namespace of pods of other workloads
RESOURCE = {"TrainingJob": "trainingjobs", "InferenceJob": "inferencejobs"}
# What pods of others may carry, and reports may hold.
ODD = (
    {"kind": "TrainingJob", "attempt": "9" * 60, "rank": "-1", "job": "j0"},
    {"kind": "InferenceJob", "attempt": "x", "shard": "1e9", "job": ""},
    {"kind": "trainingjob", "job": "j1", "job-uid": "", "pool": "nowhere"},
    {"scale-up": "default", "kind": "TrainingJob", "job": "j2"},
)
HOSTILE = (
    "[" * 4096,
    '{"error": "\\ud83d"}',
    '{"trainerStatus": {"estimatedRemainingSeconds": 300000000000}}',
    '{"trainerStatus": {"progressPercentage": 1e999, "metrics": [{"name": "loss", "value": "NaN"}]}}',
    '{"trainerStatus": {"rfuav": {"checkpoint": {"uri": "x", "savedAt": "9999-12-31T23:59:59Z", "epoch": 9007199254740993}}}}',
    '{"trainerStatus": {"rfuav": {"gpuUUID": "' + "G" * 900 + '", "samplesPerSecond": "1e308"}}}',
    '{"trainerStatus": []}',
    "null",
)
_MILD = one_of(*FATES, *("ok",) * 6)


# --- jobs


@deed(
    0,
    kind=one_of("TrainingJob", "InferenceJob"),
    gpus=one_of(0, 1, 1, 1, 1, 2),
    cpu=one_of("500m", "500m", "2"),
    memory=one_of("1Gi", "1Gi", "5Gi"),
    nodes=one_of(1, 1, 1, 1, 1, 2),
    shards=one_of(1, 1, 2, 3),
    parallelism=one_of(1, 2, 3),
    backoff=one_of(0, 1, 2, 3),
    fates=some(_MILD, 5),
    work=seconds(5, 90),
    priority=one_of("", "", "", "urgent"),
    source=one_of("", "", "", "j0", "j1"),
    grace=one_of(5, 20),
    suspend=one_of(False, False, False, False, True),
    volume=EXTRA,
)
def create(world: "World", *, job: str, kind: str, fates: list[str], work: float, **rest: Any) -> None:
    """`kubectl create`, unless the name is taken."""
    if world.find_job(job) is not None:
        return
    made = world.server.create(RESOURCE[kind], _manifest(job, kind, **rest), USER)
    world.fates[made["metadata"]["uid"]] = (list(fates), work)


def _manifest(
    job: str,
    kind: str,
    *,
    gpus: int = 1,
    cpu: str = "500m",
    memory: str = "1Gi",
    nodes: int = 1,
    shards: int = 1,
    parallelism: int = 1,
    backoff: int = 3,
    priority: str = "",
    source: str = "",
    grace: int = 5,
    suspend: bool = False,
    volume: str = "",
) -> Object:
    spec: Object = {
        **template(volume),
        "model": {"architecture": "resnet18"},
        "output": {"uri": f"pvc://results/{job}"},
        "resources": {"gpus": gpus, "cpu": cpu, "memory": memory},
        "pool": "default",
        "priorityClassName": priority,
        "suspend": suspend,
        "cancel": False,
        "backoffLimit": backoff,
        "terminationGracePeriodSeconds": grace,
    }
    if gpus > 1:
        spec["image"] = "own:1"
    if kind == "InferenceJob":
        spec |= {"input": {"uri": "pvc://captures/a"}, "shards": shards, "parallelism": parallelism}
        spec["model"] = {"fromTrainingJob": source} if source and source != job else {"weights": "pvc://models/a"}
    else:
        spec["nodes"] = nodes
        spec["dataset"] = {"train": {"uri": "pvc://captures/a"}, "validation": {"fraction": 0.2}}
    return {"metadata": {"name": job, "namespace": space(job)}, "spec": spec}


def edit(world: "World", job: str, **changes: Any) -> None:
    """`kubectl patch` of a job's spec."""
    found = world.find_job(job)
    if found is not None:
        resource, old = found
        world.server.write(resource, (space(job), job), {"spec": {**old["spec"], **changes}}, USER)


@deed(5, job=a_job, suspend=one_of(True, True, False))
def suspend(world: "World", *, job: str, suspend: bool) -> None:
    edit(world, job, suspend=suspend)


@deed(2, job=a_job, seconds=seconds(0.01, 3))
def suspend_and_resume(world: "World", *, job: str, seconds: float) -> None:
    edit(world, job, suspend=True)
    world.after(seconds, lambda: edit(world, job, suspend=False))


@deed(2, job=a_job)
def cancel(world: "World", *, job: str) -> None:
    edit(world, job, cancel=True)


@deed(3, job=a_job)
def delete(world: "World", *, job: str) -> None:
    found = world.find_job(job)
    if found is not None:
        world.server.remove(found[0], (space(job), job), USER)


@deed(2, job=a_job, seconds=seconds(1, 60))
def delete_slowly(world: "World", *, job: str, seconds: float) -> None:
    """Deleted, and held by somebody's finalizer for a while."""
    found = world.find_job(job)
    if found is None or found[1]["metadata"].get("deletionTimestamp"):
        return
    resource, held = found
    marks = {"finalizers": ["example.com/x"], "deletionTimestamp": world.stamp(), "deletionGracePeriodSeconds": 0}
    world.server.meta(resource, (space(job), job), marks, USER)
    world.after(seconds, _let_go, world, resource, job, held["metadata"]["uid"])


def _let_go(world: "World", resource: str, job: str, uid: str) -> None:
    found = world.server.get(resource, (space(job), job))
    if found is not None and found["metadata"]["uid"] == uid:
        world.server.remove(resource, (space(job), job), USER)


@deed(2, job=a_job)
def replace(world: "World", *, job: str) -> None:
    """`kubectl replace --force`: another job of the same name at once."""
    found = world.find_job(job)
    if found is None:
        return
    resource, old = found
    fates = world.fates[old["metadata"]["uid"]]
    world.server.remove(resource, (space(job), job), USER)
    body = {"metadata": {"name": job, "namespace": space(job)}, "spec": {**old["spec"], "cancel": False}}
    world.fates[world.server.create(resource, body, USER)["metadata"]["uid"]] = fates


@deed(2, job=a_job, field=one_of("parallelism", "activeDeadlineSeconds", "ttlSecondsAfterFinished"), value=whole(1, 60))
def adjust(world: "World", *, job: str, field: str, value: int) -> None:
    edit(world, job, **{field: value % 3 + 1 if field == "parallelism" else value})


@deed(2, job=a_job)
def annotate(world: "World", *, job: str) -> None:
    """Another writer: the object gets a new version, and nothing else changes."""
    found = world.find_job(job)
    if found is not None:
        stamp = {"annotations": {"note": str(world.server.version)}}
        world.server.meta(found[0], (space(job), job), stamp, USER)


@deed(1, job=a_job, pool=one_of("lab", "default"))
def move(world: "World", *, job: str, pool: str) -> None:
    """Into another pool, which a queued job may."""
    found = world.find_job(job)
    if found is not None and phase_of(found[1]) in ("", "Queued"):
        edit(world, job, pool=pool)


@deed(2, job=a_job, priority=one_of("", "urgent"))
def reprioritize(world: "World", *, job: str, priority: str) -> None:
    """Another place in the queue, for a queued job."""
    found = world.find_job(job)
    if found is not None and phase_of(found[1]) in ("", "Queued"):
        edit(world, job, priorityClassName=priority)


@deed(1, namespace=one_of("team", "lab"), seconds=seconds(2, 30))
def namespace_deleted(world: "World", *, namespace: str, seconds: float) -> None:
    """`kubectl delete namespace`: what is in it goes bit by bit, and nothing new comes; then it is made again."""
    world.api.terminating.add(namespace)
    chance = world.chance["namespace"]
    for resource in JOBS:
        for key in [key for key in world.server.objects[resource] if key[0] == namespace]:
            uid = world.server.objects[resource][key]["metadata"]["uid"]
            world.after(chance.uniform(0, seconds), _let_go, world, resource, key[1], uid)
    for pod in world.server.all("pods"):
        if pod["metadata"]["namespace"] == namespace:
            world.after(chance.uniform(0, seconds), _delete_pod, world, pod)
    world.after(seconds + 1, world.api.terminating.discard, namespace)


def _delete_pod(world: "World", seen: Object) -> None:
    pod = world.server.get("pods", (seen["metadata"]["namespace"], seen["metadata"]["name"]))
    if pod is not None and pod["metadata"]["uid"] == seen["metadata"]["uid"]:
        world.api.delete_pod(pod, "namespace-controller")


# --- pods


@deed(3, job=a_job, how=one_of("graceful", "graceful", "force"))
def delete_pods(world: "World", *, job: str, how: str) -> None:
    """`kubectl delete pod`. By force the object alone is gone, so only what does not run on a machine cut off."""
    for pod in world.pods_of(job):
        world.api.delete_pod(pod, USER, grace=0 if how == "force" else None)


@deed(3, job=a_job, seconds=seconds(20, 120))
def squat(world: "World", *, job: str, seconds: float) -> None:
    """Somebody's pod has the very name that the job's next attempt will have."""
    found = world.find_job(job)
    if found is None:
        return
    resource, held = found
    uid = held["metadata"]["uid"]
    shard = "0" if resource == "inferencejobs" else None
    suffix = "-0" if max(held["spec"].get("shards", 1), held["spec"].get("nodes", 1)) > 1 else ""
    name = f"{job}-{sha256(uid.encode()).hexdigest()[:5]}-{attempt_of(held, shard) + 1}{suffix}"
    labels = {"rfuav.io/job-uid": uid, "rfuav.io/attempt": "1"}
    key = space(job), name
    _run_other(world, key, next(iter(world.machines.all)), gpus=0, seconds=seconds, labels=labels)


@deed(3, job=a_job, delay=seconds(0.05, 2), again=one_of(True, False))
def orphan(world: "World", *, job: str, delay: float, again: bool) -> None:
    """`kubectl delete --cascade=orphan`: its pods belong to nobody, and then it is gone; or is applied again at once."""
    found = world.find_job(job)
    if found is None:
        return
    resource, held = found
    uid, pods = held["metadata"]["uid"], world.pods_of(job)
    marks = {"deletionTimestamp": world.server.stamp(), "finalizers": ["orphan"]}
    world.server.meta(resource, (space(job), job), marks, USER)
    for pod in pods:
        world.after(delay * len(pods) / 4, _cut_off, world, (space(job), pod["metadata"]["name"]))
    world.after(delay, _let_go, world, resource, job, uid)
    spec = {**held["spec"], "cancel": False, "suspend": False}
    body = {"metadata": {"name": job, "namespace": space(job)}, "spec": spec}
    if again:
        world.after(delay + 0.1, _apply, world, resource, body, world.fates[uid])


@deed(2, job=a_job, labels=one_of(["job"], ["kind"], ["attempt"], ["job", "kind"], ["job", "attempt"]))
def unlabelled(world: "World", *, job: str, labels: list[str]) -> None:
    """Somebody takes labels off a job's pods, as one does with a ReplicaSet's to look into one; they run on."""
    gone = {f"rfuav.io/{name}" for name in labels}
    for pod in world.pods_of(job):
        if pod["metadata"]["uid"] in world.kubelet.containers:
            left = {name: value for name, value in pod["metadata"]["labels"].items() if name not in gone}
            world.server.meta("pods", (space(job), pod["metadata"]["name"]), {"labels": left}, USER)


@deed(2, job=a_job)
def annotate_pods(world: "World", *, job: str) -> None:
    """Another writer: a job's pods get a new version, and nothing that the operator reads changes."""
    for pod in world.pods_of(job):
        noted = {**pod["metadata"].get("annotations", {}), "note": str(world.server.version)}
        world.server.meta("pods", (space(job), pod["metadata"]["name"]), {"annotations": noted}, USER)


def _cut_off(world: "World", key: Key) -> None:
    if world.server.get("pods", key) is not None:
        world.server.meta("pods", key, {"ownerReferences": []}, "collector")


def _apply(world: "World", resource: str, body: Object, fates: tuple[list[str], float]) -> None:
    if world.find_job(body["metadata"]["name"]) is None:
        world.fates[world.server.create(resource, body, USER)["metadata"]["uid"]] = fates


@deed(2, job=a_job, phase=one_of("Running", "Succeeded", "Failed"), seconds=seconds(5, 60))
def forged(world: "World", *, job: str, phase: str, seconds: float) -> None:
    """Somebody makes copies of a job's pods in a namespace of his own, owner and all, that end as he likes."""
    for pod in world.pods_of(job):
        meta, spec = pod["metadata"], pod["spec"]
        key = OTHERS, meta["name"]
        node = wanted_node(pod)
        held = world.server.get("nodes", ("", node))
        body = {
            "metadata": {k: meta[k] for k in ("name", "labels", "ownerReferences")} | {"namespace": OTHERS},
            "spec": {**spec, "nodeName": node},
            "status": {"phase": phase},
        }
        if phase != "Running":
            code = 0 if phase == "Succeeded" else 3
            ended = {"name": "trainer", "state": {"terminated": {"exitCode": code, "reason": "forged"}}}
            body["status"]["containerStatuses"] = [ended]
        if held is None or world.server.get("pods", key) is not None or not world.scheduler.fits(body, held):
            continue
        made = world.server.create("pods", body, USER)
        world.after(seconds, _end_other, world, key, made["metadata"]["uid"])


@deed(2, node=a_node, gpus=one_of(0, 1), labels=one_of(*range(len(ODD))), seconds=seconds(10, 90))
def odd_pod(world: "World", *, node: str, gpus: int, labels: int, seconds: float) -> None:
    """A pod whose labels mean to be ours."""
    key = OTHERS, f"odd-{world.server.version}"
    _run_other(
        world, key, node, gpus=gpus, seconds=seconds, labels={f"rfuav.io/{k}": v for k, v in ODD[labels].items()}
    )


@deed(3, job=a_job, body=one_of(*range(len(HOSTILE))))
def hostile_report(world: "World", *, job: str, body: int) -> None:
    """A job's own container reports nonsense, and leaves it behind when it ends."""
    for pod in world.pods_of(job):
        if (container := world.kubelet.containers.get(pod["metadata"]["uid"])) is not None:
            container.last_words = HOSTILE[body]
            world.post(container.pod, HOSTILE[body].encode(errors="surrogatepass"))


@deed(
    4,
    node=a_node,
    gpus=one_of(0, 1, 1, 2),
    cpu=one_of("500m", "3"),
    claims=one_of(False, False, False, True),
    seconds=seconds(10, 150),
)
def other_pod(world: "World", *, node: str, gpus: int, cpu: str, seconds: float, claims: bool = False) -> None:
    """A pod of another workload, perhaps with devices by resource claims."""
    name = f"other-{world.server.version}"
    _run_other(world, (OTHERS, name), node, gpus=gpus, seconds=seconds, cpu=cpu, claims=claims)


@deed(
    3,
    node=a_node,
    gpus=one_of(1, 1, 2),
    labels=one_of(0, 0, 1, 3),
    why=one_of({"schedulingGates": [{"name": "example.com/x"}]}, {"schedulerName": "other"}),
    seconds=seconds(5, 200),
    bound=one_of(True, False, False),
)
def unbound_pod(world: "World", *, node: str, gpus: int, labels: int, why: Object, seconds: float, bound: bool) -> None:
    """A pod of others that means to go to a node and looks like ours, and that nobody binds: for a while, or ever."""
    key = OTHERS, f"unbound-{world.server.version}"
    named = {"key": "metadata.name", "operator": "In", "values": [node]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [named]}]}}
    pod = _other(key, gpus=gpus, labels={f"rfuav.io/{k}": v for k, v in ODD[labels].items()})
    pod["spec"] |= {"affinity": {"nodeAffinity": required}, **why}
    made = world.server.create("pods", pod | {"status": {"phase": "Pending"}}, USER)
    if bound:
        world.after(seconds, _bind_other, world, made, node, seconds)


def _bind_other(world: "World", seen: Object, node: str, seconds: float) -> None:
    key = seen["metadata"]["namespace"], seen["metadata"]["name"]
    pod, held = world.server.get("pods", key), world.server.get("nodes", ("", node))
    if pod is not None and held is not None and world.scheduler.fits(pod, held):
        spec = {**pod["spec"], "nodeName": node, "schedulingGates": []}
        world.server.write("pods", key, {"spec": spec, "status": {"phase": "Running"}}, "another-scheduler")
        world.after(seconds, _end_other, world, key, pod["metadata"]["uid"])


def _other(key: Key, *, gpus: int, cpu: str = "100m", labels: Any = None) -> Object:
    namespace, name = key
    requests = {"cpu": cpu, "memory": "256Mi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {"containers": [{"resources": {"requests": requests}}]},
        "status": {"phase": "Running"},
    }


def _run_other(world: "World", key: Key, node: str, *, seconds: float, claims: bool = False, **asked: Any) -> None:
    pod = _other(key, **asked)
    pod["spec"] |= {"nodeName": node} | ({"resourceClaims": [{"name": "device"}]} if claims else {})
    held = world.server.get("nodes", ("", node))
    if held is None or world.server.get("pods", key) is not None or not world.scheduler.fits(pod, held):
        return
    made = world.server.create("pods", pod, USER)
    world.after(seconds, _end_other, world, key, made["metadata"]["uid"])


def _end_other(world: "World", key: Key, uid: str) -> None:
    pod = world.server.get("pods", key)
    if pod is not None and pod["metadata"]["uid"] == uid:
        world.server.remove("pods", key, USER)


def end_others(world: "World") -> None:
    """Pods of others are gone, but for those that nobody binds: they stay for ever."""
    for pod in world.server.all("pods"):
        if not owner_of(pod) and is_live_phase(pod) and (pod["spec"].get("nodeName") or not is_left_alone(pod)):
            world.server.remove("pods", (pod["metadata"]["namespace"], pod["metadata"]["name"]), USER)
