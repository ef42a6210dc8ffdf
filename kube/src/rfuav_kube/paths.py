"""Where the API server keeps what Kubernetes itself has: the paths of the requests, in one place."""

PODS = "/api/v1/pods"
NODES = "/api/v1/nodes"
NAMESPACES = "/api/v1/namespaces"
RESOURCE_QUOTAS = "/api/v1/resourcequotas"
CLAIMS = "/api/v1/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
PRIORITY_CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"


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
