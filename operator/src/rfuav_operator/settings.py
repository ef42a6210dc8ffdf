"""Settings of the operator: a YAML file, then the environment, then `--set` flags; the last one wins.

They are read once at start, validated as a whole, and never changed. In the environment
`RFUAV_OPERATOR__LEADER__LEASE_SECONDS=15`, on the command line `--set leader.leaseSeconds=15`, mean what
`leader: {leaseSeconds: 15}` means in the file.
"""

import os
import platform
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from rfuav_crds import GPUPoolSpec
from rfuav_operator import configuration
from rfuav_operator.configuration import Section
from rfuav_operator.core.model import Defaults

PREFIX = "RFUAV_OPERATOR__"

CLUSTER_LEASE = "rfuav-operator"  # of all releases, whatever their own is called
LONGEST_LEASE = 600  # seconds


def _https(url: str) -> str:
    if url and not re.fullmatch(r"https://[^/\s]+", url):
        raise ValueError("write https://HOST:PORT without a path, or nothing for the operator's Service")
    return url


class Jobs(Section):
    """Defaults of jobs."""

    image: str = Field("", description="the trainer image of jobs without spec.image")
    training_priority_class: str = Field("rfuav-training", description="PriorityClass of trainings that name none")
    inference_priority_class: str = Field("rfuav-inference", description="PriorityClass of inferences that name none")
    training_priority: int = Field(1000, description="priority of trainings if that class does not exist")
    inference_priority: int = Field(2000, description="priority of inferences if that class does not exist")
    cluster_assigns_users: bool = Field(
        default=False, description="pods get no user and no group unless their job names one (OpenShift)"
    )
    allow_cpu: bool = Field(default=False, description="sets RFUAV_ALLOW_CPU=1 in every pod; only for demos and tests")


class Retries(Section):
    """How failed and evicted pods are run again."""

    backoff_base_seconds: int = Field(10, ge=1, description="pause after the first failure; doubles with each")
    backoff_cap_seconds: int = Field(600, ge=1, description="longest pause between two attempts")
    uncounted_limit: int = Field(
        20, ge=0, description="evictions, lost nodes and the like that a job survives without progress"
    )
    node_avoid_seconds: int = Field(600, ge=0, description="how long a node where a pod could not start is avoided")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.backoff_cap_seconds < self.backoff_base_seconds:
            raise ValueError("backoffCapSeconds must be at least backoffBaseSeconds")
        return self


class Writes(Section):
    """The writer's limits."""

    progress_per_second: float = Field(20, gt=0, description="status writes a second, transitions not counted")
    progress_interval_seconds: float = Field(2, ge=0, description="shortest time between two of them for one job")
    queue_interval_seconds: float = Field(10, ge=0, description="the same if only the place in the queue changed")
    parallel: int = Field(50, ge=1, le=200, description="concurrent requests")
    timeout_seconds: float = Field(10, gt=0, description="how long one request may take")


class Connections(Section):
    """How long the connections of a server may take, and how many there may be."""

    handshake_seconds: float = Field(5, gt=0, description="time for the TLS handshake")
    request_seconds: float = Field(15, gt=0, description="time for a request, and again for its answer")
    idle_seconds: float = Field(30, gt=0, description="time between two requests")
    per_peer: int = Field(64, ge=1, description="connections of one address; pods behind one node may share it")
    total: int = Field(512, ge=1, description="connections of all addresses; a TLS connection takes some 270 KiB")


class ProgressServer(Section):
    """The HTTPS server that pods report to."""

    enabled: bool = Field(default=True, description="whether pods report progress; jobs run without it too")
    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104  reached through its Service
    port: int = Field(8443, ge=0, le=65535, description="port to listen on")
    url: Annotated[str, AfterValidator(_https)] = Field("", description="URL to which pods report; empty: the Service")
    service: str = Field("rfuav-operator-progress", description="Service that selects the leader")
    service_port: int = Field(443, ge=1, le=65535, description="port of that Service")
    ca_secret: str = Field("rfuav-operator-progress-ca", description="Secret with the CA, in the operator's namespace")
    reports_per_second: float = Field(2, gt=0, description="reports a second of one pod; more are answered 429")
    connections: Connections = Connections()


class Leader(Section):
    """Leader election by a Lease in the operator's namespace."""

    lease: str = Field("rfuav-operator", description="Lease of the replicas, in the operator's namespace")
    lease_seconds: int = Field(
        15, ge=3, le=LONGEST_LEASE, description="time after which another replica takes over from a missing leader"
    )
    cluster_namespace: str = Field(
        "kube-system",
        description="namespace of the Lease that lets one release serve the cluster; empty: no such Lease",
    )
    identity: str = Field(
        "", description="name in the Leases; empty: the pod's name, or outside a pod the host name and a random part"
    )


class Health(Section):
    """Plain HTTP: /healthz, /readyz, /metrics."""

    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104  probes come from the kubelet
    port: int = Field(8080, ge=0, le=65535, description="port of probes and metrics")
    connections: Connections = Connections(per_peer=32, total=128)


def _pool_spec(spec: dict[str, Any]) -> dict[str, Any]:
    try:
        GPUPoolSpec.model_validate(spec)
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, e['loc'])) or 'spec'}: {e['msg']}" for e in error.errors())
        raise ValueError(f"not a GPUPool spec: {'; '.join(wrong)}") from error
    return spec


class DefaultPool(Section):
    """The GPUPool `default`, which the leader creates and keeps according to these settings."""

    enabled: bool = Field(default=False, description="whether the operator creates the GPUPool `default`")
    spec: Annotated[dict[str, Any], AfterValidator(_pool_spec)] = Field(
        default_factory=dict, description="its spec; `kubectl explain gpupool.spec` describes it"
    )


class Settings(Section):
    """All settings of the operator."""

    namespace: str = Field("", description="the operator's own namespace; empty: POD_NAMESPACE, else rfuav-system")
    kubeconfig: str = Field("", description="file with credentials; empty: those of the pod, else KUBECONFIG")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    watch_namespaces: list[str] = Field(
        default_factory=list, description="namespaces whose jobs and quotas are served; empty: all"
    )
    jobs: Jobs = Jobs()
    retries: Retries = Retries()
    writes: Writes = Writes()
    progress: ProgressServer = ProgressServer()
    leader: Leader = Leader()
    health: Health = Health()
    default_pool: DefaultPool = DefaultPool()
    resync_seconds: float = Field(
        60, gt=0, description="time between two lists, which drop objects whose deletion was missed"
    )

    @model_validator(mode="after")
    def _two_leases(self) -> Self:
        if self.leader.cluster_namespace and (self.leader.cluster_namespace, self.leader.lease) == (
            self.namespace,
            CLUSTER_LEASE,
        ):
            raise ValueError(
                f"leader.clusterNamespace: {self.namespace} is the operator's own namespace, where its other Lease has "
                "this name: set another existing namespace, or an empty one for no such Lease"
            )
        return self

    @property
    def progress_url(self) -> str:
        """The URL for pods: the override, or the Service in the operator's namespace."""
        if not self.progress.enabled:
            return ""
        port = "" if self.progress.service_port == 443 else f":{self.progress.service_port}"  # noqa: PLR2004  https
        return self.progress.url or f"https://{self.progress.service}.{self.namespace}.svc{port}"

    def defaults(self, progress_ca: str) -> Defaults:
        """The part that the rules read."""
        return Defaults(
            **self.jobs.model_dump(),
            **self.retries.model_dump(),
            progress_url=self.progress_url,
            progress_ca=progress_ca,
        )


def load(path: Path | None = None, *, env: Mapping[str, str] | None = None, overrides: Sequence[str] = ()) -> Settings:
    """Read the file, then `RFUAV_OPERATOR__*` of `env` (default: the process's), then `NAME=VALUE` overrides.

    Raises:
        SettingsError: names the setting and the problem.
    """
    env = os.environ if env is None else env
    tree = configuration.tree(PREFIX, path, env=env, overrides=overrides)
    tree.setdefault("namespace", env.get("POD_NAMESPACE") or "rfuav-system")
    leader = tree.setdefault("leader", {})
    if isinstance(leader, dict) and not leader.get("identity"):
        leader["identity"] = env.get("POD_NAME") or f"{platform.node()}-{os.getpid()}-{secrets.token_hex(3)}"
    return configuration.validated(Settings, tree)
