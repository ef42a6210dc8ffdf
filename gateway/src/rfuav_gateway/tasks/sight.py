"""What a caller may list: jobs by type and namespace, quotas by namespace, pools."""

from typing import NamedTuple

from rfuav_gateway.tasks.bodies import TaskType


class Sight(NamedTuple):
    """The same for two callers who see the same."""

    everywhere: frozenset[TaskType] = frozenset()
    """The types of jobs that they may list in all namespaces."""
    jobs: frozenset[tuple[TaskType, str]] = frozenset()
    """Types and namespaces of jobs that they may list besides."""
    quotas_everywhere: bool = False
    quotas: frozenset[str] = frozenset()
    """The namespaces whose GPUQuotas they may list besides."""
    pools: bool = False
    only: str = ""
    """Not empty: they have asked for this namespace alone."""

    def sees(self, kind: TaskType, namespace: str) -> bool:
        """Whether they may list the jobs of a type in a namespace, and have asked for it."""
        if self.only and namespace != self.only:
            return False
        return kind in self.everywhere or (kind, namespace) in self.jobs

    def sees_quota(self, namespace: str) -> bool:
        """The same of the namespace's GPUQuota."""
        if self.only and namespace != self.only:
            return False
        return self.quotas_everywhere or namespace in self.quotas

    @property
    def is_whole(self) -> bool:
        """Whether they see the jobs of all namespaces."""
        return bool(self.everywhere) and not self.only

    def namespaces(self) -> list[str]:
        """The namespaces where they may list some jobs, of one who does not see all."""
        if self.everywhere:
            return [self.only]
        return sorted({name for _, name in self.jobs if self.only in ("", name)})
