"""Our four kinds as the API server has them: their group, names and plurals, and where each object is."""

from rfuav_operator.core.model import Job, Pool, Quota
from rfuav_operator.core.names import API_VERSION, PLURAL

GROUP, _, VERSION = API_VERSION.partition("/")
OURS = f"/apis/{API_VERSION}"
KIND_OF = {plural: kind for kind, plural in PLURAL.items()}
POOL, QUOTA = "GPUPool", "GPUQuota"
POOLS, QUOTAS = "gpupools", "gpuquotas"


def job(read: Job) -> str:
    """One job."""
    return f"{OURS}/namespaces/{read.namespace}/{PLURAL[read.kind]}/{read.name}"


def limits(target: Pool | Quota) -> str:
    """A pool, or a namespace's quota."""
    if isinstance(target, Pool):
        return f"{OURS}/{POOLS}/{target.name}"
    return f"{OURS}/namespaces/{target.namespace}/{QUOTAS}/default"
