"""From a job and one of its assignments to the manifest of the pod: the pod contract, operator's side.

The job's spec as the user wrote it, the assignment (name, node, shard) and the operator's settings come in; a plain
manifest goes out. Nothing here looks at the cluster.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from rfuav_crds import contract
from rfuav_operator.core import names
from rfuav_operator.core.capacity.volumes import claims_in_uris
from rfuav_operator.core.job import units
from rfuav_operator.core.model import Assignment, Defaults, Job, Landing, Source, node_label

USER = 65532
_FILE = "file://"
LONGEST_STRING = 131_072  # bytes: what Linux takes as one string of a new process, NAME=VALUE and a NUL
LONGEST_STRINGS = 2_000_000  # bytes of all, a little less than Linux takes by default
_SPARE = 4096  # bytes of RFUAV_JOB beside the spec: names, and weights instead of fromTrainingJob
_UNTOLD = ("podTemplate", "pool", "priorityClassName", "suspend", "cancel", "backoffLimit", "uncountedLimit")
_REFERENCE = re.compile(r"\$\$|\$\(([^)]*)\)")  # Kubernetes puts variables in here
RENDEZVOUS_PORT = 29500  # torch's own default
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_HOSTNAME = "kubernetes.io/hostname"


def manifest(
    job: Job,
    assignment: Assignment,
    defaults: Defaults,
    *,
    landing: Landing | None = None,
) -> dict[str, Any]:
    """The pod of `assignment`, restricted Pod Security throughout, owned by the job.

    A pod without a node of its own waits for a new one, which `landing` describes.
    """
    template: Mapping[str, Any] = job.raw_spec.get("podTemplate") or {}
    metadata: Mapping[str, Any] = template.get("metadata") or {}
    attempt = units.attempt_of(job.status, assignment.shard)
    annotations = {**(metadata.get("annotations") or {}), contract.ANNOTATION_OUTPUT: output_of(job)}
    if defaults.progress_url:
        annotations[contract.ANNOTATION_CA] = defaults.progress_ca
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": assignment.pod,
            "namespace": job.namespace,
            "labels": {
                **(metadata.get("labels") or {}),
                **names.pod_labels(job, attempt, shard=assignment.shard, rank=assignment.rank),
                **({} if landing is None else {contract.LABEL_SCALE_UP: landing.pool}),
                **({contract.LABEL_NODE: node_label(assignment.node)} if assignment.node else {}),
            },
            "annotations": annotations,
            "ownerReferences": [_owner(job)],
        },
        "spec": _pod_spec(job, assignment, attempt, template=template, defaults=defaults)
        | ({} if landing is None else _on_a_new_node(landing)),
    }


def landing(job: Job, taken: Iterable[str], selector: Mapping[str, str]) -> Landing:
    """Where a pod without a node may land: on none of the nodes in `taken` while our pods are there.

    The labels of the pool's `selector` and of the job's own tell an autoscaler what kind of node to add.
    """
    template: Mapping[str, Any] = job.raw_spec.get("podTemplate") or {}
    labels = {**selector, **(template.get("nodeSelector") or {})}
    return Landing(pool=job.spec.pool, selector=tuple(sorted(labels.items())), barred=frozenset(map(node_label, taken)))


def service(job: Job) -> dict[str, Any]:
    """The headless Service through which the pods of a job of several nodes find the first of them."""
    labels = {contract.LABEL_JOB: job.name, contract.LABEL_KIND: job.kind.value, contract.LABEL_JOB_UID: job.uid}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.service_name(job),
            "namespace": job.namespace,
            "labels": labels,
            "ownerReferences": [_owner(job)],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,  # they look for each other before any of them is ready
            "selector": {contract.LABEL_JOB_UID: job.uid},
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
        },
    }


def _owner(job: Job) -> dict[str, Any]:
    return {
        "apiVersion": contract.API_VERSION,
        "kind": job.kind.value,
        "name": job.name,
        "uid": job.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _pod_spec(
    job: Job,
    assignment: Assignment,
    attempt: int,
    *,
    template: Mapping[str, Any],
    defaults: Defaults,
) -> dict[str, Any]:
    spec = effective_spec(job)
    claims = claims_in_uris(spec)
    security = template.get("securityContext") or {}
    tolerations = list(template.get("tolerations") or ())
    if assignment.gpus > 0:  # GPU nodes usually carry this taint
        tolerations.append({"key": contract.GPU, "operator": "Exists", "effect": "NoSchedule"})
    progress = bool(defaults.progress_url)
    pod = trainer_pod(
        claims,
        image=job.spec.image or defaults.image,
        args=["run"],
        env=[
            *_environment(job, assignment, attempt, spec=spec, claims=claims, defaults=defaults),
            # One that was stored before the name was reserved would have GPUs that are others'.
            *(v for v in template.get("env") or () if v.get("name") != contract.VISIBLE_DEVICES),
        ],
        resources=_resources(job, assignment.gpus),
        users=users(security, None if defaults.cluster_assigns_users else USER),
        shared_memory=None if job.spec.resources.shared_memory is None else str(job.spec.resources.shared_memory),
        mounts=[_PROGRESS_MOUNT] if progress else (),
        volumes=[_progress_volume(defaults)] if progress else (),
    )
    pod["containers"][0]["volumeMounts"] += template.get("volumeMounts") or ()
    pod["volumes"] += template.get("volumes") or ()
    pod["terminationGracePeriodSeconds"] = job.spec.termination_grace_period_seconds
    pod["tolerations"] = tolerations
    if template.get("envFrom"):
        pod["containers"][0]["envFrom"] = list(template["envFrom"])
    for key in ("nodeSelector", "imagePullSecrets", "serviceAccountName"):
        if template.get(key):
            pod[key] = template[key]
    if job.spec.nodes > 1 and assignment.rank is not None:
        pod["hostname"], pod["subdomain"] = assignment.pod, names.service_name(job)
    if assignment.node:
        pod["affinity"] = _affinity(assignment.node)
    return pod


def trainer_pod(
    claims: Mapping[str, bool],
    *,
    image: str,
    args: Sequence[str],
    env: Sequence[Mapping[str, Any]],
    resources: Mapping[str, Mapping[str, str]],
    users: Mapping[str, int],
    shared_memory: str | None,
    mounts: Sequence[Mapping[str, Any]] = (),
    volumes: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The spec of a pod with the trainer's container and nothing else: restricted Pod Security, a read-only root.

    Args:
        claims: the claims that it mounts below `contract.MOUNT_ROOT`, and whether it writes there.
        image: of the trainer.
        args: of its command.
        env: variables.
        resources: requests and limits.
        users: runAsUser, runAsGroup and fsGroup; what is missing the cluster assigns.
        shared_memory: size of /dev/shm; None: no limit.
        mounts: of volumes of the caller's own.
        volumes: these volumes.
    """
    folders = [{"name": name, "mountPath": path} for name, path in contract.FOLDERS.items()]
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            **users,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": contract.CONTAINER,
                "image": image,
                "args": list(args),
                "env": list(env),
                "resources": resources,
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [*folders, *mounts, *_claim_mounts(claims)],
            }
        ],
        "volumes": [
            {"name": "rfuav-tmp", "emptyDir": {}},
            {"name": "rfuav-home", "emptyDir": {}},
            {
                "name": "rfuav-shm",
                "emptyDir": {"medium": "Memory"} | ({} if shared_memory is None else {"sizeLimit": shared_memory}),
            },
            *volumes,
            *({"name": f"rfuav-claim-{i}", "persistentVolumeClaim": {"claimName": c}} for i, c in enumerate(claims)),
        ],
    }


def variables(values: Mapping[str, str]) -> list[dict[str, Any]]:
    """Variables of a container, with these values and those that say where its folders are."""
    own = {
        "HOME": contract.HOME,
        "XDG_CACHE_HOME": f"{contract.HOME}/.cache",
        "TMPDIR": "/tmp",  # noqa: S108  an emptyDir of the pod's own
    }
    # A LimitRange may set the limit when the pod is created; where nobody does, this is what the node has.
    limit = {"resourceFieldRef": {"containerName": contract.CONTAINER, "resource": "limits.ephemeral-storage"}}
    return [
        *({"name": name, "value": literal(value)} for name, value in (own | dict(values)).items()),
        {"name": contract.EPHEMERAL_STORAGE, "valueFrom": limit},
    ]


def users(security: Mapping[str, Any], otherwise: int | None) -> dict[str, int]:
    """User and groups: what the job says, `otherwise` this, or nothing, which leaves them to the cluster."""
    user = security.get("runAsUser", otherwise)
    wanted = {"runAsUser": user, "runAsGroup": user, "fsGroup": security.get("fsGroup", otherwise)}
    return {name: number for name, number in wanted.items() if number is not None}


def _on_a_new_node(landing: Landing) -> dict[str, Any]:
    """The part of the pod's spec that makes it wait for a new node.

    One node for each pod: the scheduler does not know the pool's limits, and the capacity of the new node is unknown.
    Node affinity would keep the pod off existing nodes, but some autoscalers add no node for such a pod; anti-affinity
    against our pods on these nodes does the same (ADR 10).
    """
    away: list[dict[str, Any]] = [{"key": contract.LABEL_SCALE_UP, "operator": "Exists"}]
    if landing.barred:
        away.append({"key": contract.LABEL_NODE, "operator": "In", "values": sorted(landing.barred)})
    apart = [
        {"topologyKey": _HOSTNAME, "namespaceSelector": {}, "labelSelector": {"matchExpressions": [one]}}
        for one in away
    ]
    affinity = {"podAntiAffinity": {_REQUIRED: apart}}
    return {"affinity": affinity} | ({"nodeSelector": dict(landing.selector)} if landing.selector else {})


def _affinity(node: str) -> dict[str, Any]:
    """Required affinity by the name of a node: the scheduler still binds, so all else that it knows is respected."""
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    return {"nodeAffinity": {_REQUIRED: {"nodeSelectorTerms": [term]}}}


def effective_spec(job: Job) -> dict[str, Any]:
    """The spec for the pod: the weights of a TrainingJob that was waited for take the place of its name."""
    spec = dict(job.raw_spec)
    source: Source | None = job.status.source
    if source is not None:
        spec["model"] = {"weights": source.weights}  # in the place of fromTrainingJob: the API takes one of the two
    return spec


def output_of(job: Job) -> str:
    """Where the pods of a job write to."""
    return str((job.raw_spec.get("output") or {}).get("uri") or "")


def told(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec as its container receives it: without the fields that only the operator reads.

    The mount of podTemplate that holds a file:/// output stays: it tells the trainer that the output is kept.
    """
    seen = {key: value for key, value in spec.items() if key not in _UNTOLD}
    uri = str((spec.get("output") or {}).get("uri") or "")
    if uri.startswith(_FILE):
        folder = f"{uri.removeprefix(_FILE).rstrip('/')}/"
        mounts = [
            {"name": mount.get("name"), "mountPath": mount.get("mountPath")}
            for mount in (spec.get("podTemplate") or {}).get("volumeMounts") or ()
            if folder.startswith(f"{str(mount.get('mountPath')).rstrip('/')}/") and not mount.get("readOnly")
        ]
        volumes = dict.fromkeys(mount["name"] for mount in mounts)
        seen["podTemplate"] = {"volumes": [{"name": n, "emptyDir": {}} for n in volumes], "volumeMounts": mounts}
    return seen


def too_long(spec: Mapping[str, Any]) -> list[str]:
    """The parts of a spec that are too long for a process, and what to write instead."""
    document = told(spec)
    parts = {key: len(msgspec.json.encode(value)) for key, value in document.items()}
    job = sum(parts.values()) + _SPARE
    problems = []
    if job > LONGEST_STRING:
        largest = max(parts, key=lambda key: parts[key])
        problems.append(
            f"spec takes {job:,} bytes, and the container receives it in one variable ({contract.JOB}) of at most "
            f"{LONGEST_STRING:,}: shorten spec.{largest} ({parts[largest]:,} bytes)"
        )
    lengths = {contract.JOB: job}
    for variable in (spec.get("podTemplate") or {}).get("env") or ():
        name, value = str(variable.get("name") or ""), variable.get("value")
        lengths[name] = length = _expanded(value, lengths) if isinstance(value, str) else 0
        if length + len(name) + 2 > LONGEST_STRING:
            problems.append(
                f"spec.podTemplate.env: {name} takes {length:,} bytes (with the variables that it refers to as "
                f"$(NAME)), and Linux takes at most {LONGEST_STRING:,} in one: shorten it, or mount a ConfigMap"
            )
    total = sum(len(name.encode()) + length + 2 for name, length in lengths.items())
    if not problems and total > LONGEST_STRINGS:
        largest = max(lengths, key=lambda name: lengths[name])
        problems.append(
            f"spec.podTemplate.env: the variables take {total:,} bytes, and Linux takes at most "
            f"{LONGEST_STRINGS:,}: shorten {largest} ({lengths[largest]:,} bytes), or mount a ConfigMap with it"
        )
    return problems


def _expanded(value: str, lengths: Mapping[str, int]) -> int:
    """Bytes of a variable's value after Kubernetes has replaced $(NAME) by the variables before it."""
    length, end = 0, 0
    for found in _REFERENCE.finditer(value):
        length += len(value[end : found.start()].encode())
        name, end = found.group(1), found.end()
        length += 1 if name is None else lengths.get(name, len(found.group().encode()))
    return length + len(value[end:].encode())


def progress_url(job: Job, defaults: Defaults) -> str:
    """Where the pods of a job post their progress: Kubeflow's path with our group and plural."""
    path = f"apis/{contract.API_VERSION}/namespaces/{job.namespace}/{contract.PLURALS[job.kind]}/{job.name}/status"
    return f"{defaults.progress_url.rstrip('/')}/{path}"


def _environment(
    job: Job,
    assignment: Assignment,
    attempt: int,
    *,
    spec: Mapping[str, Any],
    claims: Mapping[str, bool],
    defaults: Defaults,
) -> list[dict[str, Any]]:
    document: dict[str, Any] = {
        "apiVersion": contract.API_VERSION,
        "kind": job.kind.value,
        "name": job.name,
        "namespace": job.namespace,
        "uid": job.uid,
        "attempt": attempt,
        "spec": told(spec),
    }
    if assignment.shard is None:
        document["rank"] = assignment.rank or 0
        if job.spec.nodes > 1:
            document["nodes"] = job.spec.nodes
    else:
        document |= {"shard": assignment.shard, "shards": job.spec.shards}
    env = {
        contract.JOB: msgspec.json.encode(document, order="sorted").decode(),
        contract.MOUNTS: msgspec.json.encode({claim: f"{contract.MOUNT_ROOT}/{claim}" for claim in claims}).decode(),
    }
    if job.spec.nodes > 1 and assignment.rank is not None:
        env |= _rendezvous(job, assignment, attempt)
    if assignment.gpus == 0:  # images often set "all", which some runtimes obey without asking the device plugin
        env[contract.VISIBLE_DEVICES] = contract.NO_DEVICES
    if defaults.allow_cpu:
        env[contract.ALLOW_CPU] = "1"
    if defaults.progress_url:
        env[contract.PROGRESS_URL] = progress_url(job, defaults)
        env[contract.PROGRESS_CA] = f"{contract.SECRETS}/ca.crt"
        env[contract.PROGRESS_TOKEN] = f"{contract.SECRETS}/token"
    return variables(env)


def literal(value: str) -> str:
    """A variable's value or an argument as Kubernetes must get it.

    It turns $$ into $, and $(NAME) into the variable of that name.
    """
    return value.replace("$", "$$")


def _rendezvous(job: Job, assignment: Assignment, attempt: int) -> dict[str, str]:
    """What torchrun reads from the environment (PET_*): how many nodes, which one this is, where the first is."""
    first = names.pod_name(job, attempt, rank=0)
    return {
        contract.NODES: str(job.spec.nodes),
        contract.NODE_RANK: str(assignment.rank),
        contract.PROCESSES_PER_NODE: str(max(1, job.spec.resources.gpus)),
        contract.MASTER_ADDRESS: f"{first}.{names.service_name(job)}.{job.namespace}.svc",
        contract.MASTER_PORT: str(RENDEZVOUS_PORT),
    }


def _resources(job: Job, gpus: int) -> dict[str, dict[str, str]]:
    """CPU is requested, and limited only on demand: idle cores help. Memory is both, so that the request is honest."""
    asked = job.spec.resources
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    if asked.cpu is not None:
        requests["cpu"] = str(asked.cpu)
    if asked.cpu_limit is not None:
        limits["cpu"] = str(asked.cpu_limit)
    if asked.memory is not None:
        requests["memory"] = limits["memory"] = str(asked.memory)
    if gpus > 0:
        limits[contract.GPU] = str(gpus)
    return {"requests": requests, "limits": limits}


def _claim_mounts(claims: Mapping[str, bool]) -> list[dict[str, Any]]:
    return [
        {"name": f"rfuav-claim-{i}", "mountPath": f"{contract.MOUNT_ROOT}/{claim}"}
        | ({} if writes else {"readOnly": True})
        for i, (claim, writes) in enumerate(claims.items())
    ]


_PROGRESS_MOUNT = {"name": "rfuav-progress", "mountPath": contract.SECRETS, "readOnly": True}


def _progress_volume(defaults: Defaults) -> dict[str, Any]:
    # The kubelet gives the token to the user or group of the pod; where it names neither, all in it may read it.
    mode = 0o444 if defaults.cluster_assigns_users else 0o440
    return {"name": "rfuav-progress", "projected": {"defaultMode": mode, "sources": _progress_sources()}}


def _progress_sources() -> list[dict[str, Any]]:
    """The pod-bound token, and the CA through an annotation: what the progress server is known by."""
    field = f"metadata.annotations['{contract.ANNOTATION_CA}']"
    return [
        {"serviceAccountToken": {"audience": contract.TOKEN_AUDIENCE, "expirationSeconds": 3600, "path": "token"}},
        {"downwardAPI": {"items": [{"path": "ca.crt", "fieldRef": {"fieldPath": field}}]}},
    ]
