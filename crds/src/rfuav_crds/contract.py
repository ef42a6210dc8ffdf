"""The pod contract: what the operator and a trainer image agree on; these names are defined only here.

In: nothing. Out: names of the API, exit codes, variables, paths and labels; the reasons are in `reasons`.
docs/trainer.md describes them for other images.
"""

# The API.
GROUP = "rfuav.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
PLURALS = {kind: f"{kind.lower()}s" for kind in ("TrainingJob", "InferenceJob", "GPUPool", "GPUQuota")}
"""Names of the resources in the API's paths, by kind."""
GPU = "nvidia.com/gpu"
"""The resource that a node offers and a pod asks for."""

# Exit codes of the trainer.
EXIT_FAILED = 1
EXIT_INVALID_CONFIGURATION = 2
EXIT_INPUT = 3
EXIT_GPU_OUT_OF_MEMORY = 4
EXIT_STOPPED = 75
"""Stopped after saving: the next attempt resumes."""

# Variables that the operator sets.
JOB = "RFUAV_JOB"
MOUNTS = "RFUAV_MOUNTS"
ALLOW_CPU = "RFUAV_ALLOW_CPU"
EPHEMERAL_STORAGE = "RFUAV_EPHEMERAL_STORAGE"
PROGRESS_URL = "KUBEFLOW_TRAINER_SERVER_URL"
PROGRESS_CA = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
PROGRESS_TOKEN = "KUBEFLOW_TRAINER_SERVER_TOKEN"  # noqa: S105  the name of a variable
NODES = "PET_NNODES"
NODE_RANK = "PET_NODE_RANK"
PROCESSES_PER_NODE = "PET_NPROC_PER_NODE"
MASTER_ADDRESS = "PET_MASTER_ADDR"
MASTER_PORT = "PET_MASTER_PORT"
VISIBLE_DEVICES = "NVIDIA_VISIBLE_DEVICES"
"""Which GPUs the NVIDIA container runtime gives the container: set by the device plugin, or `NO_DEVICES`."""
NO_DEVICES = "void"

# Variables for tests and other images; the operator does not set them.
PROGRESS_INTERVAL = "RFUAV_PROGRESS_INTERVAL"
TERMINATION_LOG_FILE = "RFUAV_TERMINATION_LOG"

RESERVED_PREFIXES = ("RFUAV_", "KUBEFLOW_TRAINER_", VISIBLE_DEVICES)
"""Variables with these prefixes belong to the operator and the device plugin: podTemplate.env may not set them."""

# Paths in the container.
MOUNT_ROOT = "/mnt/rfuav"
"""The claim NAME is mounted at MOUNT_ROOT/NAME."""
HOME = "/home/rfuav"
FOLDERS = {"rfuav-tmp": "/tmp", "rfuav-shm": "/dev/shm", "rfuav-home": HOME}  # noqa: S108 - paths in the container
"""The volumes that every pod has, and where: users may mount below them, not on them."""
SECRETS = "/var/run/secrets/rfuav.io"
"""Folder of the token and the CA certificate for progress reports."""
TERMINATION_LOG = "/dev/termination-log"
TERMINATION_BYTES = 4096
"""What the kubelet keeps of the termination message."""

LOG = "log.jsonl"
"""The log lines of a job in its output, for when its pods are gone. Of shard i of several: log-i.jsonl."""

CONTAINER = "trainer"
"""Name of the container that decides how the pod ended."""

# Labels of pods.
LABEL_JOB = f"{GROUP}/job"
LABEL_KIND = f"{GROUP}/kind"
LABEL_ATTEMPT = f"{GROUP}/attempt"
LABEL_RANK = f"{GROUP}/rank"
LABEL_SHARD = f"{GROUP}/shard"
LABEL_JOB_UID = f"{GROUP}/job-uid"
LABEL_POOL = f"{GROUP}/pool"
LABEL_NODE = f"{GROUP}/node"
"""Of pods that were made for a node: its name."""
LABEL_SCALE_UP = f"{GROUP}/scale-up"
"""Of pods that wait for a new node: their pool."""

# Annotations of pods.
ANNOTATION_CA = f"{GROUP}/progress-ca"
"""The CA certificate of the progress server, as PEM."""
ANNOTATION_OUTPUT = f"{GROUP}/output"
"""Where the pod writes to."""

# Annotations of jobs that the REST gateway made.
ANNOTATION_TASK_ID = f"{GROUP}/task-id"
"""The task's id, as its client chose it."""
ANNOTATION_TASK_DIGEST = f"{GROUP}/task-digest"
"""SHA-256 of what the create asked for: the same create twice is one task."""
ANNOTATION_TASK_DEVICE = f"{GROUP}/task-device"
"""The device that was asked for."""
ANNOTATION_TASK_DESCRIPTION = f"{GROUP}/task-description"
ANNOTATION_TASK_INPUT = f"{GROUP}/task-input"
ANNOTATION_TASK_OUTPUT = f"{GROUP}/task-output"
"""What a preparation of data reads and writes, as its client named it."""
ANNOTATION_CALLBACK_URL = f"{GROUP}/callback-url"
"""The URL that is told when the job has ended."""
LABEL_PREPARATION = f"{GROUP}/preparation"
"""On the batch/v1 Jobs that prepare data, and on their pods: split, augment or crop."""
ANNOTATION_CREATED_BY = f"{GROUP}/created-by"
ANNOTATION_CANCELLED_BY = f"{GROUP}/cancelled-by"
"""Who created or cancelled the job through the gateway: the name of the API server's user."""

TOKEN_AUDIENCE = f"{GROUP}/progress"
"""Audience of the pod's token."""
