"""Why a pod failed, in the order of docs/reasons.md, and what follows from it (counted, final, node avoided).

A failed pod comes in; a `Verdict` goes out. Whether the job may try again is decided in `lifecycle`.
"""

import re

import msgspec

from rfuav_crds import contract, reasons
from rfuav_operator.core.job import vetoes
from rfuav_operator.core.job.progress import human_message, reason_word
from rfuav_operator.core.model import Beside, Pod, PodPhase

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
_LOST_SIGHT = frozenset({"ContainerStatusUnknown", "Unknown"})  # of a kubelet or a containerd that found it dead
_KILLED = (137, 143)  # by SIGKILL, by SIGTERM
_NOT_BEGUN = frozenset({"StartError", "ContainerCannotRun"})
_NOT_THE_TRAINERS = reasons.OWN | _TAKEN_AWAY | _LOST_SIGHT | _NOT_BEGUN
# What a runtime says that cannot give the container its GPU, or is overloaded, full or away: another node may.
_OF_THE_NODE = re.compile(
    r"nvidia-container|nvml|\bCDI\b|deadline exceeded|timed out|no space left|input/output error"
    r"|too many open files|cannot allocate memory|resource temporarily unavailable|connection refused"
    r"|transport is closing",
    re.IGNORECASE,
)
_LONGEST_TEXT = 4096
_REASON = re.compile(r"[A-Za-z][A-Za-z0-9_.:/-]{0,99}", re.ASCII)  # OutOfnvidia.com/gpu, say
_ADMISSION = ("UnexpectedAdmissionError", "OutOf", "NodeAffinity", "TopologyAffinityError")


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one failure means."""

    reason: str
    message: str
    counted: bool  # against backoffLimit
    outage: bool = False  # the cluster did not let it begin: counted nowhere, such failures only space the tries
    final: bool = False  # never tried again
    avoid_node: bool = False
    vetoed: bool = False  # the scheduler refused this node: others are tried first
    exit_code: int | None = None


def succeeded(pod: Pod) -> bool:
    """Whether a pod whose trainer has ended succeeded: only the trainer's exit code counts.

    A pod that was removed from its node did not succeed: a trainer that is asked to stop may end with 0.
    """
    if pod.phase is PodPhase.FAILED and _is_taken_away(pod):
        return False
    return pod.exit_code == 0 or (pod.exit_code is None and pod.phase is PodPhase.SUCCEEDED)


def classify(pod: Pod, *, gpu_shared: bool, ran: bool = False) -> Verdict:
    """Why this failed pod failed.

    Args:
        pod: as it is now.
        gpu_shared: its node gives several slots for one GPU.
        ran: its trainer was seen running, though the pod may not say so any more.
    """
    code = pod.exit_code
    said = human_message(pod.termination_message)
    if _is_taken_away(pod):
        return Verdict(
            reason=_of_others(pod.reason, reasons.EVICTED),
            message=pod.message or "the pod was removed from its node",
            counted=False,
            avoid_node=pod.reason.startswith(_ADMISSION),
            exit_code=code,
        )
    if code is None and (other := next((c for c in pod.beside if c.exit_code is not None), None)) is not None:
        return _other_failed(other)
    if code is None:
        return _end_not_observed(pod) if ran or pod.started else _never_ran(pod)
    if pod.terminated_reason in _LOST_SIGHT:
        lost = "the node lost track of the container (for example because it restarted)"
        return Verdict(reason=pod.terminated_reason, message=lost, counted=False, exit_code=code)
    if pod.terminated_reason in _NOT_BEGUN and _OF_THE_NODE.search(pod.termination_message[:_LONGEST_TEXT]):
        message = f"the container could not be started: {human_message(pod.termination_message)}"
        return Verdict(reason=pod.terminated_reason, message=message, counted=False, avoid_node=True, exit_code=code)
    if pod.terminated_reason == "OOMKilled":
        return Verdict(
            reason=reasons.OUT_OF_MEMORY,
            message="the container needed more memory than its limit; raise spec.resources.memory, "
            "or lower batchSize, workers or sharedMemory",
            counted=True,
            exit_code=code,
        )
    if pod.deleting and code in _KILLED:
        message = "the pod was deleted while it ran and did not report a saved checkpoint"
        return Verdict(reason=reasons.POD_DELETED, message=message, counted=False, exit_code=code)
    if code == contract.EXIT_INVALID_CONFIGURATION:
        message = said or "the trainer rejected its configuration; its log says why"
        return _final(_told(pod, reasons.INVALID_CONFIGURATION), message, code)
    if code == contract.EXIT_INPUT:
        message = said or "an input is missing or unreadable; the trainer's log says which"
        return _final(_told(pod, reasons.INPUT_MISSING), message, code)
    if code == contract.EXIT_GPU_OUT_OF_MEMORY:
        advice = "the GPU ran out of memory; lower batchSize or imageSize, or ask for more spec.resources.gpuMemory"
        if gpu_shared:
            advice += " (the GPU is shared with other jobs, so it is tried again)"
        return Verdict(
            reason=_told(pod, reasons.GPU_OUT_OF_MEMORY),
            message=said or advice,
            counted=True,
            final=not gpu_shared,
            exit_code=code,
        )
    if code == contract.EXIT_STOPPED:
        return Verdict(
            reason=_told(pod, reasons.STOPPED),
            message=said or "the pod was told to stop and saved a checkpoint",
            counted=False,
            exit_code=code,
        )
    what = f"exit code {code}"
    return Verdict(
        reason=_word(pod),
        message=f"{what}: {said}" if said else what,
        counted=True,
        exit_code=code,
    )


def _never_ran(pod: Pod) -> Verdict:
    """None of its containers ran: the kubelet ended the pod, not the job."""
    message = pod.message or "the pod failed before any of its containers ran"
    reason = _of_others(pod.reason, reasons.UNEXPECTED_ADMISSION_ERROR)
    return Verdict(reason=reason, message=message, counted=False, avoid_node=True)


def _end_not_observed(pod: Pod) -> Verdict:
    """Its trainer ran, and nobody says how it ended: not the job's fault, as far as is known."""
    message = pod.message or "the pod failed, and how its container ended was not observed"
    return Verdict(reason=_of_others(pod.reason, reasons.POD_VANISHED), message=message, counted=False)


def _is_taken_away(pod: Pod) -> bool:
    return pod.disrupted or pod.reason in _TAKEN_AWAY or pod.reason.startswith("OutOf")


def _other_failed(other: Beside) -> Verdict:
    """A container that a webhook added ended the pod before the trainer could start: not the job's fault."""
    if other.reason == "OOMKilled":
        what = "killed for memory (OOMKilled): it needs a larger limit"
    else:
        what = f"exit {other.exit_code}" + (f" ({other.reason})" if other.reason not in ("", "Error") else "")
    said = human_message(other.message)
    return Verdict(
        reason=reasons.INIT_CONTAINER_FAILED if other.init else reasons.SIDECAR_FAILED,
        message=f"{other.title}: {what}" + (f": {said}" if said else ""),
        counted=False,
    )


def _final(reason: str, message: str, code: int) -> Verdict:
    return Verdict(reason=reason, message=message, counted=True, final=True, exit_code=code)


def _word(pod: Pod) -> str:
    said = pod.terminated_reason or pod.reason
    return _of_others("" if said == "Error" else said, _told(pod, reasons.CONTAINER_FAILED))


def _of_others(word: str, reason: str) -> str:
    """A reason that the kubelet or the runtime gave; `reason`, if it is none, or one that is the operator's own."""
    own = word in reasons.OWN and word not in _TAKEN_AWAY
    return word if _REASON.fullmatch(word) and not own else reason


def _told(pod: Pod, reason: str) -> str:
    """The trainer's own reason for its end, unless it is a reason of the operator or the kubelet."""
    word = reason_word(pod.termination_message, pod.exit_code)
    return word if word and word not in _NOT_THE_TRAINERS else reason


def vanished() -> Verdict:
    """A pod that ran and disappeared without an observed end."""
    return Verdict(
        reason=reasons.POD_VANISHED, message="the pod disappeared, and its end was not observed", counted=False
    )


def deleted() -> Verdict:
    """A pod that disappeared before it ran."""
    message = "the pod or its node was deleted before the pod ran"
    return Verdict(reason=reasons.POD_DELETED, message=message, counted=False)


def node_lost(node: str) -> Verdict:
    """A pod on a node that was deleted, or tainted out-of-service."""
    return Verdict(reason=reasons.NODE_LOST, message=f"node {node} was lost", counted=False, avoid_node=True)


def rejected(words: str) -> Verdict:
    """The API server answered the create with 403 or 422."""
    asks_limit = (
        "must specify" in words and "limits.cpu" in words
    )  # a ResourceQuota counts it, and no LimitRange sets it
    advice = "; write spec.resources.cpuLimit" if asks_limit else ""
    if "must be less than or equal to cpu limit of" in words:
        advice = "; if a LimitRange of the namespace sets that limit, write spec.resources.cpuLimit"
    message = f"the API server refused the pod: {words}{advice}"
    return Verdict(reason=reasons.REJECTED_BY_CLUSTER, message=message, counted=False, outage=True)


def refused(pod: Pod, node: str) -> Verdict:
    """Admitted, but the scheduler rejects this node, or every node, for the pod."""
    of_node = vetoes.of(pod.unschedulable) is vetoes.Veto.NODE
    what = f"the scheduler refused node {node}" if of_node else "the scheduler refused the pod"
    message = f"{what}: {pod.unschedulable}"
    return Verdict(reason=reasons.UNSCHEDULABLE, message=message, counted=False, outage=True, vetoed=of_node)


def node_unavailable(node: str, why: str) -> Verdict:
    """Admitted, but the node disappeared or became unavailable before the pod was bound."""
    message = f"node {node} {why} before the pod was bound to it"
    return Verdict(reason=reasons.NODE_UNAVAILABLE, message=message, counted=False, outage=True)


def not_scheduled(pod: Pod, seconds: int) -> Verdict:
    """Admitted, and not bound in time."""
    why = pod.unschedulable or "the scheduler gave no reason"
    message = f"not bound within {seconds} s: {why}"
    return Verdict(reason=reasons.SCHEDULE_TIMEOUT, message=message, counted=False, outage=True, avoid_node=True)


def not_scaled_up(pod: Pod, seconds: int) -> Verdict:
    """Admitted without a node, and none came in time."""
    why = pod.unschedulable or "the scheduler gave no reason"
    message = f"no node was added within {seconds} s: {why}"
    return Verdict(reason=reasons.SCALE_UP_TIMEOUT, message=message, counted=False, outage=True)


def unsuited(node: str, why: str, *, counted: bool) -> Verdict:
    """The scheduler, which does not know the pool's limits, chose a node that they forbid to the job.

    `counted`: an autoscaler added the node and would add a similar one again.
    """
    message = (
        f"the scheduler chose node {node}, which does not suit the job ({why}); "
        "new nodes of the pool must suit its jobs"
    )
    return Verdict(reason=reasons.NODE_UNSUITED, message=message, counted=counted, outage=not counted)
