"""Where the API server keeps things: the paths of the requests, in one place."""

from rfuav_operator.core.model import Job, Kind

GROUP, VERSION = "rfuav.io", "v1alpha1"
OURS = f"/apis/{GROUP}/{VERSION}"
PLURAL = {Kind.TRAINING: "trainingjobs", Kind.INFERENCE: "inferencejobs"}
KIND_OF = {plural: kind for kind, plural in PLURAL.items()}
POOL = "GPUPool"
POOLS, QUOTAS = "gpupools", "gpuquotas"

PODS = "/api/v1/pods"
NODES = "/api/v1/nodes"
PRIORITY_CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"


def job(read: Job) -> str:
    """One job."""
    return f"{OURS}/namespaces/{read.namespace}/{PLURAL[read.kind]}/{read.name}"


def pods(namespace: str) -> str:
    """The pods of a namespace."""
    return f"/api/v1/namespaces/{namespace}/pods"


def events(namespace: str) -> str:
    """The events of a namespace."""
    return f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"


def leases(namespace: str) -> str:
    """The leases of a namespace."""
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


def secrets(namespace: str) -> str:
    """The secrets of a namespace."""
    return f"/api/v1/namespaces/{namespace}/secrets"
