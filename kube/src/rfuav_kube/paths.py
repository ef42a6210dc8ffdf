"""Where the API server keeps what Kubernetes itself has: the paths of the requests, in one place."""

import re

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")

PODS = "/api/v1/pods"
NODES = "/api/v1/nodes"
NAMESPACES = "/api/v1/namespaces"
RESOURCE_QUOTAS = "/api/v1/resourcequotas"
CLAIMS = "/api/v1/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
PRIORITY_CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"


def is_name(text: str) -> bool:
    """Whether this may be the name of an object: a DNS subdomain of RFC 1123, which a path can hold as it is."""
    return _NAME.fullmatch(text) is not None


def named(text: str) -> str:
    """A name as a step of a path.

    Raises:
        ValueError: it is none; a path with it would lead elsewhere.
    """
    if not is_name(text):
        raise ValueError(f"not the name of an object: {text[:100]!r}")
    return text


def services(namespace: str) -> str:
    """The services of a namespace."""
    return f"/api/v1/namespaces/{named(namespace)}/services"


def pods(namespace: str) -> str:
    """The pods of a namespace."""
    return f"/api/v1/namespaces/{named(namespace)}/pods"


def events(namespace: str) -> str:
    """The events of a namespace."""
    return f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"


def leases(namespace: str) -> str:
    """The leases of a namespace."""
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


def secrets(namespace: str) -> str:
    """The secrets of a namespace."""
    return f"/api/v1/namespaces/{namespace}/secrets"
