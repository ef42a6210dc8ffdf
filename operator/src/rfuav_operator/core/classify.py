"""Why a pod failed, in the order of the API page; what follows from it (counted, final, node avoided).

A failed pod comes in; a `Verdict` goes out. Whether the job may try again is decided by `retries`.
"""

import msgspec

from rfuav_operator.core import vetoes
from rfuav_operator.core.model import Pod
from rfuav_operator.core.progress import human_message

INVALID_CONFIGURATION = 2
INPUT_MISSING = 3
GPU_OUT_OF_MEMORY = 4
CHECKPOINTED = 75

OUT_OF_MEMORY = "OutOfMemory"
REJECTED = "RejectedByCluster"
IMAGE_PULL = "ImagePullFailed"
NODE_LOST = "NodeLost"
SCHEDULE_TIMEOUT = "ScheduleTimeout"
UNSCHEDULABLE = "Unschedulable"
NODE_UNAVAILABLE = "NodeUnavailable"
START_TIMEOUT = "StartTimeout"
SCALE_UP_TIMEOUT = "ScaleUpTimeout"

# A pod of these never ran, and not by its own fault: they space the tries, nothing more.
NEVER_RAN = frozenset({REJECTED, SCALE_UP_TIMEOUT, SCHEDULE_TIMEOUT, UNSCHEDULABLE, NODE_UNAVAILABLE})

# status.reason of pods that the kubelet or the scheduler took away or never let in, besides `OutOf<resource>`.
_TAKEN_AWAY = frozenset(
    {
        "Evicted",
        "Preempting",
        "NodeLost",
        "NodeShutdown",
        "Shutdown",
        "Terminated",  # graceful node shutdown
        "UnexpectedAdmissionError",
        "NodeAffinity",
        "NodePorts",
        "TopologyAffinityError",
    }
)
_ADMISSION = ("UnexpectedAdmissionError", "OutOf", "NodeAffinity", "TopologyAffinityError")


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one failure means."""

    reason: str
    message: str
    counted: bool  # against backoffLimit
    final: bool = False  # never tried again
    avoid_node: bool = False
    vetoed: bool = False  # the scheduler refused this node: others are tried first
    exit_code: int | None = None


def classify(pod: Pod, *, gpu_shared: bool) -> Verdict:
    """Why this failed pod failed. `gpu_shared`: its node gives several slots for one GPU."""
    code = pod.exit_code
    said = human_message(pod.termination_message)
    if pod.disrupted or pod.reason in _TAKEN_AWAY or pod.reason.startswith("OutOf"):
        return Verdict(
            reason=pod.reason or "Evicted",
            message=pod.message or "the pod was taken off its node",
            counted=False,
            avoid_node=pod.reason.startswith(_ADMISSION),
            exit_code=code,
        )
    if pod.terminated_reason == "OOMKilled":
        return Verdict(
            reason=OUT_OF_MEMORY,
            message="the container needed more memory than its limit; raise spec.resources.memory, "
            "or lower batchSize, workers or sharedMemory",
            counted=True,
            exit_code=code,
        )
    if code == INVALID_CONFIGURATION:
        return _final("InvalidConfiguration", said or "the trainer refused its configuration; its log says why", code)
    if code == INPUT_MISSING:
        return _final("InputMissing", said or "an input is missing or unreadable; the trainer's log says which", code)
    if code == GPU_OUT_OF_MEMORY:
        advice = "the GPU ran out of memory; lower batchSize or imageSize, or ask for more spec.resources.gpuMemory"
        if gpu_shared:
            advice += " (the GPU is shared with other jobs, so it is tried again)"
        return Verdict(
            reason="GPUOutOfMemory", message=said or advice, counted=True, final=not gpu_shared, exit_code=code
        )
    if code == CHECKPOINTED:
        return Verdict(
            reason="StoppedAfterCheckpoint",
            message=said or "the pod was told to stop and saved a checkpoint",
            counted=False,
            exit_code=code,
        )
    what = f"exit code {code}" if code is not None else pod.message or "the pod failed"
    return Verdict(
        reason=_word(pod.terminated_reason or pod.reason),
        message=f"{what}: {said}" if said else what,
        counted=True,
        exit_code=code,
    )


def _final(reason: str, message: str, code: int) -> Verdict:
    return Verdict(reason=reason, message=message, counted=True, final=True, exit_code=code)


def _word(reason: str) -> str:
    return reason if reason and reason != "Error" else "ContainerFailed"


def vanished() -> Verdict:
    """A pod that ran and is there no more, without an end that was seen."""
    return Verdict(reason="PodVanished", message="the pod is gone and its end was not seen", counted=False)


def node_lost(node: str) -> Verdict:
    """A pod on a node that was deleted, or tainted out-of-service."""
    return Verdict(reason=NODE_LOST, message=f"node {node} was lost", counted=False, avoid_node=True)


def rejected(words: str) -> Verdict:
    """The API server answered the create with 403 or 422."""
    return Verdict(reason=REJECTED, message=f"the API server refused the pod: {words}", counted=False)


def image_pull(pod: Pod) -> Verdict:
    """An image that cannot be pulled."""
    return Verdict(
        reason=IMAGE_PULL,
        message=f"the image cannot be pulled: {pod.waiting_message or pod.waiting_reason}",
        counted=True,
    )


def refused(pod: Pod, node: str) -> Verdict:
    """Admitted, and the scheduler says that this node is not for the pod, or that no node is."""
    of_node = vetoes.of(pod.unschedulable) is vetoes.Veto.NODE
    what = f"the scheduler refused node {node}" if of_node else "the scheduler refused the pod"
    return Verdict(reason=UNSCHEDULABLE, message=f"{what}: {pod.unschedulable}", counted=False, vetoed=of_node)


def node_unavailable(node: str, why: str) -> Verdict:
    """Admitted, and the node is not there any more, or does not take it any more, before the pod was bound."""
    return Verdict(reason=NODE_UNAVAILABLE, message=f"node {node} {why} before the pod was bound to it", counted=False)


def not_scheduled(pod: Pod, seconds: int) -> Verdict:
    """Admitted, and not bound in time."""
    why = pod.unschedulable or "the scheduler gave no reason"
    return Verdict(
        reason=SCHEDULE_TIMEOUT, message=f"not bound within {seconds} s: {why}", counted=False, avoid_node=True
    )


def not_scaled_up(pod: Pod, seconds: int) -> Verdict:
    """Admitted without a node, and none came in time."""
    why = pod.unschedulable or "the scheduler gave no reason"
    return Verdict(reason=SCALE_UP_TIMEOUT, message=f"no node was added within {seconds} s: {why}", counted=False)


def unsuited(node: str, why: str) -> Verdict:
    """The scheduler, which knows nothing of a pool's limits, chose a node that the job's shape is not for."""
    message = f"node {node}, on which the scheduler put it, is one {why}: the pool's new nodes must suit its jobs"
    return Verdict(reason="NodeUnsuited", message=message, counted=True)


def not_started(pod: Pod, seconds: int) -> Verdict:
    """Bound, and not running in time."""
    why = ": ".join(filter(None, (pod.waiting_reason, pod.waiting_message))) or pod.message or "no reason was given"
    return Verdict(
        reason=START_TIMEOUT, message=f"not running within {seconds} s: {why}", counted=False, avoid_node=True
    )
