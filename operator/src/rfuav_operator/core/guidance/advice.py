"""What to do about a reason, in a sentence: for people who see it in a status. docs/reasons.md has more of each."""

from rfuav_crds import reasons

_AS_IT_SAYS = "change the job as the message says, and submit it again"
_DATA = "put the data where the message says, and submit the job again"
_AGAIN = "nothing: it runs again by itself"

_ADVICE = {
    # A job waits.
    reasons.UNDECODABLE: "update the operator, or correct the field that the message names",
    reasons.INTERNAL_ERROR: "report it with the operator's log; it tries again by itself",
    reasons.ON_HOLD: "ask an administrator when the pool or the quota is opened again",
    reasons.MISCONFIGURED: "correct what the message names",
    reasons.WAITING_FOR_VOLUME: "create the claim that the message names, or wait until it is free",
    reasons.WAITING_FOR_TRAINING_JOB: "wait for the training, or create it",
    reasons.NO_MATCHING_NODE: "ask for less GPU memory or other node labels, or choose another pool",
    reasons.EXCEEDS_MAX_QUOTA: "ask for less, or an administrator for a larger quota or node",
    reasons.BACKING_OFF: _AGAIN,
    reasons.WAITING_FOR_QUOTA: "wait for the team's other jobs, or ask an administrator for a larger quota",
    reasons.WAITING_FOR_CAPACITY: "wait, ask for less, or choose another pool",
    reasons.WAITING_FOR_PREEMPTED_JOBS: "nothing: room is being made for it",
    # A pod failed.
    reasons.REJECTED_BY_CLUSTER: "ask an administrator about the policy or webhook that the message quotes",
    reasons.UNSCHEDULABLE: "compare the job with what the scheduler says in the message",
    reasons.SCHEDULE_TIMEOUT: _AGAIN,
    reasons.SCALE_UP_TIMEOUT: "ask an administrator why the autoscaler adds no node",
    reasons.NODE_UNAVAILABLE: _AGAIN,
    reasons.NODE_UNSUITED: "give the pool a nodeSelector that only suitable nodes match",
    reasons.NODE_LOST: "ask an administrator to delete the Node, or to taint it node.kubernetes.io/out-of-service",
    reasons.IMAGE_PULL_FAILED: "correct spec.image, or podTemplate.imagePullSecrets",
    reasons.START_TIMEOUT: "read the Events of the pod: its volumes, network or container runtime do not get ready",
    reasons.POD_DELETED: _AGAIN,
    reasons.POD_VANISHED: _AGAIN,
    reasons.EVICTED: _AGAIN,
    reasons.PREEMPTED: "nothing: it queues again and continues from its checkpoint",
    reasons.POOL_DRAINED: "nothing: it continues from its checkpoint when the pool is opened again",
    reasons.RESTARTED_TOGETHER: "nothing: all pods of the job start again from the checkpoint",
    reasons.NO_SUCH_POOL: "create the pool again",
    reasons.UNEXPECTED_ADMISSION_ERROR: _AGAIN,
    reasons.INIT_CONTAINER_FAILED: "ask an administrator about the container that the message names",
    reasons.SIDECAR_FAILED: "ask an administrator about the container that the message names",
    reasons.OUT_OF_MEMORY: "raise spec.resources.memory",
    reasons.CONTAINER_FAILED: "read the log of the pod",
    # A job may not go on.
    reasons.BACKOFF_LIMIT_EXCEEDED: "mend what the last failure names, and submit the job again",
    reasons.TOO_MANY_DISRUPTIONS: "raise spec.uncountedLimit, or save checkpoints more often",
    reasons.DEADLINE_EXCEEDED: "raise spec.activeDeadlineSeconds",
    reasons.SOURCE_FAILED: "mend the training whose weights it needs, and submit both again",
    # The trainer ended.
    **dict.fromkeys(
        (
            reasons.INVALID_CONFIGURATION,
            reasons.UNSUPPORTED,
            reasons.NO_ACCELERATOR,
            reasons.CUSTOM_MODEL,
            reasons.CLASS_MISMATCH,
            reasons.WEIGHTS_MISMATCH,
            reasons.PREPROCESSING_MISMATCH,
            reasons.CHECKPOINT_MISMATCH,
            reasons.OUTPUT_NOT_WRITABLE,
            reasons.DISK_FULL,
            reasons.OUT_OF_HOST_MEMORY,
            reasons.SHARED_MEMORY_TOO_SMALL,
        ),
        _AS_IT_SAYS,
    ),
    **dict.fromkeys(
        (
            reasons.INPUT_MISSING,
            reasons.UNREADABLE,
            reasons.DATA_DIFFERS,
            reasons.CLAIM_NOT_MOUNTED,
            reasons.TOO_MANY_UNREADABLE,
            reasons.WEIGHTS_UNREADABLE,
            reasons.LABELS_MISSING,
            reasons.PERMISSION_DENIED,
            reasons.ACCESS_DENIED,
            reasons.CACHE_TOO_SMALL,
        ),
        _DATA,
    ),
    reasons.GPU_OUT_OF_MEMORY: "write the batchSize that the message names, batchSize: auto, or more gpuMemory",
    reasons.OUTPUT_IN_USE: "choose another output, or write output.overwrite: true",
    reasons.OUTPUT_BUSY: "wait for the job that the message names, or choose another output",
    reasons.DIVERGED: "lower the learning rate, or write training.clipNorm",
    reasons.STORAGE_UNAVAILABLE: "check that the store in the message answers",
    reasons.CHECKPOINT_DIFFERS: "check that all nodes see the same files in the output",
    reasons.NO_MEETING: "check the network between the nodes",
    reasons.PROCESS_LOST: "read the log of the pod: it has the traceback",
    reasons.CRASHED: "read the log of the pod: it has the traceback",
    reasons.PEER_LOST: _AGAIN,
    reasons.STOPPED: _AGAIN,
}


def advice(reason: str) -> str:
    """What to do about it; empty: nothing is known."""
    return _ADVICE.get(reason, "")
