"""Where the API server keeps things: the paths of the requests, in one place."""

from rfuav_operator.core.model import Job, Kind, Pool, Quota

GROUP, VERSION = "rfuav.io", "v1alpha1"
OURS = f"/apis/{GROUP}/{VERSION}"
PLURAL = {Kind.TRAINING: "trainingjobs", Kind.INFERENCE: "inferencejobs"}
KIND_OF = {plural: kind for kind, plural in PLURAL.items()}
POOL, QUOTA = "GPUPool", "GPUQuota"
POOLS, QUOTAS = "gpupools", "gpuquotas"

PODS = "/api/v1/pods"
NODES = "/api/v1/nodes"
NAMESPACES = "/api/v1/namespaces"
RESOURCE_QUOTAS = "/api/v1/resourcequotas"
CLAIMS = "/api/v1/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
PRIORITY_CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"


def job(read: Job) -> str:
    """One job."""
    return f"{OURS}/namespaces/{read.namespace}/{PLURAL[read.kind]}/{read.name}"


def limits(target: Pool | Quota) -> str:
    """A pool, or a namespace's quota."""
    if isinstance(target, Pool):
        return f"{OURS}/{POOLS}/{target.name}"
    return f"{OURS}/namespaces/{target.namespace}/{QUOTAS}/default"


def services(namespace: str) -> str:
    """The services of a namespace."""
    return f"/api/v1/namespaces/{namespace}/services"


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
