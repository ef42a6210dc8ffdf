"""Every reason that the operator and its trainer write into a status, a condition, an Event or a termination message.

In: nothing. Out: the words, each once. docs/reasons.md says what they mean.
"""

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

# A pod failed, by its exit code; the trainer uses the same words.
INVALID_CONFIGURATION = "InvalidConfiguration"
INPUT_MISSING = "InputMissing"
GPU_OUT_OF_MEMORY = "GPUOutOfMemory"
STOPPED = "StoppedAfterCheckpoint"
BOTH = frozenset({GPU_OUT_OF_MEMORY, INPUT_MISSING, INVALID_CONFIGURATION, STOPPED})


def _defined() -> frozenset[str]:
    return frozenset(word for name, word in globals().items() if name.isupper() and isinstance(word, str))


OWN = _defined()
"""All that the operator writes. Decisions depend on some, so no other source may use these words."""

# The trainer ended: the words of its termination message that the operator passes on.
UNSUPPORTED = "Unsupported"
NO_ACCELERATOR = "NoAccelerator"
CUSTOM_MODEL = "CustomModel"
CLASS_MISMATCH = "ClassMismatch"
WEIGHTS_MISMATCH = "WeightsMismatch"
PREPROCESSING_MISMATCH = "PreprocessingMismatch"
CHECKPOINT_MISMATCH = "CheckpointMismatch"
OUTPUT_IN_USE = "OutputInUse"
OUTPUT_NOT_WRITABLE = "OutputNotWritable"
DIVERGED = "Diverged"
UNREADABLE = "Unreadable"
TOO_MANY_UNREADABLE = "TooManyUnreadable"
DATA_DIFFERS = "DataDiffers"
CLAIM_NOT_MOUNTED = "ClaimNotMounted"
WEIGHTS_UNREADABLE = "WeightsUnreadable"
LABELS_MISSING = "LabelsMissing"
PERMISSION_DENIED = "PermissionDenied"
ACCESS_DENIED = "AccessDenied"
CACHE_TOO_SMALL = "CacheTooSmall"
PEER_LOST = "PeerLost"
OUTPUT_BUSY = "OutputBusy"
DISK_FULL = "DiskFull"
OUT_OF_HOST_MEMORY = "OutOfHostMemory"
SHARED_MEMORY_TOO_SMALL = "SharedMemoryTooSmall"
STORAGE_UNAVAILABLE = "StorageUnavailable"
CHECKPOINT_DIFFERS = "CheckpointDiffers"
NO_MEETING = "NoMeeting"
PROCESS_LOST = "ProcessLost"
CRASHED = "Crashed"
INTERRUPTED = "Interrupted"
COMPLETED = "Completed"

OF_TRAINER = BOTH | (_defined() - OWN)
"""All that the trainer writes."""
