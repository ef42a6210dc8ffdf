"""Every reason that the operator itself writes into a status, a condition or an Event.

In: nothing. Out: the words, each once. docs/reasons.md says what they mean.
"""

from rfuav_crds.contract import GPU_OUT_OF_MEMORY, INPUT_MISSING, INVALID_CONFIGURATION, STOPPED

# A job waits, or something is on hold.
ON_HOLD = "OnHold"
MISCONFIGURED = "Misconfigured"
WAITING_FOR_VOLUME = "WaitingForVolume"
WAITING_FOR_TRAINING_JOB = "WaitingForTrainingJob"
NO_MATCHING_NODE = "NoMatchingNode"
EXCEEDS_MAX_QUOTA = "ExceedsMaxQuota"
UNSCHEDULABLE = "Unschedulable"
BACKING_OFF = "BackingOff"
REJECTED_BY_CLUSTER = "RejectedByCluster"
WAITING_FOR_QUOTA = "WaitingForQuota"
WAITING_FOR_CAPACITY = "WaitingForCapacity"
WAITING_FOR_PREEMPTED_JOBS = "WaitingForPreemptedJobs"

# An object cannot be read; the operator failed to handle it; neither is the case any more.
UNDECODABLE = "Undecodable"
INTERNAL_ERROR = "InternalError"
RECOVERED = "Recovered"

# The life of a job.
QUEUED = "Queued"
ADMITTED = "Admitted"
STARTING = "Starting"
RUNNING = "Running"
RESUMED = "Resumed"
SUCCEEDED = "Succeeded"
FAILED = "Failed"
CANCELLED = "Cancelled"

# Pods of a job that continues are being removed, or none is created.
NO_PODS = "NoPods"
EVICTED = "Evicted"
PREEMPTED = "Preempted"
SUSPENDED = "Suspended"
POOL_DRAINED = "PoolDrained"
RESTARTED_TOGETHER = "RestartedTogether"
NO_SUCH_POOL = "NoSuchPool"

# A pod failed.
OUT_OF_MEMORY = "OutOfMemory"
IMAGE_PULL_FAILED = "ImagePullFailed"
NODE_LOST = "NodeLost"
NODE_UNAVAILABLE = "NodeUnavailable"
NODE_UNSUITED = "NodeUnsuited"
POD_DELETED = "PodDeleted"
POD_VANISHED = "PodVanished"
POD_NAME_TAKEN = "PodNameTaken"
SCHEDULE_TIMEOUT = "ScheduleTimeout"
SCALE_UP_TIMEOUT = "ScaleUpTimeout"
START_TIMEOUT = "StartTimeout"
CONTAINER_FAILED = "ContainerFailed"
INIT_CONTAINER_FAILED = "InitContainerFailed"
SIDECAR_FAILED = "SidecarFailed"
UNEXPECTED_ADMISSION_ERROR = "UnexpectedAdmissionError"

# A job may not go on, where that is not the reason of its last pod.
BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
TOO_MANY_DISRUPTIONS = "TooManyDisruptions"
DEADLINE_EXCEEDED = "DeadlineExceeded"
SOURCE_FAILED = "SourceFailed"

# Pools, and sharing of a GPU.
READY = "Ready"
NO_NODES = "NoNodes"
GPUS_UNKNOWN = "GPUsUnknown"
GPUS_UNHEALTHY = "GPUsUnhealthy"
STANDS_BY = "StandsBy"
ONE_RELEASE = "OneRelease"
TRAININGS_SHARE_GPU = "TrainingsShareGPU"
ALONE = "Alone"

# A pod failed; its trainer may use the same reasons.
OF_TRAINERS = frozenset({GPU_OUT_OF_MEMORY, INPUT_MISSING, INVALID_CONFIGURATION, STOPPED})

OWN = OF_TRAINERS | {word for name, word in tuple(globals().items()) if name.isupper() and isinstance(word, str)}
"""All of them. Decisions depend on some, so no other source may use these words."""
