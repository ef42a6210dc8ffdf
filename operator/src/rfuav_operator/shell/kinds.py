"""Our four kinds as the API server has them: their group, names and plurals, and where each object is."""

from rfuav_crds.contract import API_VERSION, PLURALS
from rfuav_operator.core.model import Job, Kind, Pool, Quota

OURS = f"/apis/{API_VERSION}"
KIND_OF = {PLURALS[kind]: kind for kind in Kind}
POOL, QUOTA = "GPUPool", "GPUQuota"
POOLS, QUOTAS = PLURALS[POOL], PLURALS[QUOTA]


def job(read: Job) -> str:
    """One job."""
    return f"{OURS}/namespaces/{read.namespace}/{PLURALS[read.kind]}/{read.name}"


def limits(target: Pool | Quota) -> str:
    """A pool, or a namespace's quota."""
    if isinstance(target, Pool):
        return f"{OURS}/{POOLS}/{target.name}"
    return f"{OURS}/namespaces/{target.namespace}/{QUOTAS}/default"
