"""The control plane: etcd, API server, controller manager and scheduler as plain processes of the caller's user.

No root is needed.

In: a cluster's settings and the programs. Out: an API server that answers /readyz.
"""

import ssl
import time
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import tenacity
import yaml

from localcluster import processes
from localcluster.errors import LocalClusterError
from localcluster.pki import Authority
from localcluster.state import Layout, Settings, port_is_free

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
_LOOKS_UNTIL_DEAD = 5
_PORT_GRACE = 2.0  # seconds
_PORTS_OF = {
    "etcd": ("etcd", "etcd-peer"),
    "kube-apiserver": ("apiserver",),
    "kube-controller-manager": ("controller-manager",),
    "kube-scheduler": ("scheduler",),
    "kwok": ("kwok",),
    "registry": ("registry",),
    "coredns": ("coredns", "coredns-health"),
}


def start(layout: Layout, settings: Settings, programs: dict[str, Path]) -> None:
    """Start what does not run yet and wait until the API server is ready."""
    authority = Authority(layout.pki)
    authority.ensure()
    _write_configuration(layout, settings, authority)
    launch(layout, settings, "etcd", _etcd(layout, settings, programs))
    launch(layout, settings, "kube-apiserver", _apiserver(layout, settings, programs))
    _wait_ready(layout, settings)
    launch(layout, settings, "kube-controller-manager", _controller_manager(layout, settings, programs))
    launch(layout, settings, "kube-scheduler", _scheduler(layout, settings, programs))


def launch(
    layout: Layout, settings: Settings, component: str, command: list[str], environment: dict[str, str] | None = None
) -> None:
    """Start a component that owns ports, unless it runs; says so when a stranger holds one of them."""
    if processes.is_running(layout, component):
        return
    for port in (settings.ports[name] for name in _PORTS_OF[component]):
        if not _becomes_free(port):
            message = (
                f"Port {port}, which cluster {layout.name} keeps for its {component}, is taken by another process (`ss"
                f" -ltnp sport = :{port}` shows it)."
                f" Stop that, or run `localcluster down --name {layout.name}` and `up` again to get other ports."
            )
            raise LocalClusterError(message)
    processes.start(layout, component, command, extra_environment=environment)


def _becomes_free(port: int) -> bool:
    """Whether the port is free, or is within a moment: a killed process is gone before its sockets are."""
    deadline = time.monotonic() + _PORT_GRACE
    while not port_is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def wait_until(
    layout: Layout, component: str, ready: Callable[[], bool], timeout: float, *, needs: tuple[str, ...] = ()
) -> None:
    """Poll until `ready`; on a timeout, or when the component or one that it needs dies, raise with the end of its log.

    `needs`: components whose log has the cause if this one cannot reach them.
    """
    unseen = dict.fromkeys((*needs, component), 0)

    def look() -> bool:
        if ready():
            return True
        alive = {process.component for process in processes.running(layout)}
        for each in unseen:
            # a process between fork and exec has no environment for an instant, so one look proves nothing
            unseen[each] = 0 if each in alive else unseen[each] + 1
            if unseen[each] > _LOOKS_UNTIL_DEAD:
                log = processes.tail(layout, each)
                raise LocalClusterError(
                    f"{each} of cluster {layout.name} ended while starting. The end of its log:\n{log}"
                )
        return False

    retry = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda ok: not ok),
        stop=tenacity.stop_after_delay(timeout),
        wait=tenacity.wait_fixed(0.1),
    )
    try:
        retry(look)
    except tenacity.RetryError:
        message = (
            f"{component} of cluster {layout.name} was not ready after {timeout:.0f} s. The end of"
            f" {processes.log_path(layout, component)}:\n"
            f"{processes.tail(layout, component)}"
        )
        raise LocalClusterError(message) from None


def is_ready(layout: Layout, settings: Settings) -> bool:
    """Whether the API server says that it is ready."""
    try:
        # inside, because there are no certificates yet while the programs are built
        context = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
        https = urllib.request.HTTPSHandler(context=context)
        opener = urllib.request.build_opener(https, urllib.request.ProxyHandler({}))
        with opener.open(f"{settings.server_url}/readyz", timeout=2) as response:
            return bool(response.status == HTTPStatus.OK)
    except OSError:
        return False


def _wait_ready(layout: Layout, settings: Settings) -> None:
    wait_until(layout, "kube-apiserver", lambda: is_ready(layout, settings), timeout=90, needs=("etcd",))


def _write_configuration(layout: Layout, settings: Settings, authority: Authority) -> None:
    url = settings.server_url
    service = str(settings.service_network[1])
    names = (
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    )
    authority.issue("kube-apiserver", "kube-apiserver", hosts=(*names, "127.0.0.1", str(settings.gateway), service))
    authority.issue("kubelet-client", "kube-apiserver-kubelet-client", groups=("system:masters",))
    authority.issue("aggregator", "front-proxy-client")
    authority.kubeconfig(layout.pki / "controller-manager.kubeconfig", url, "system:kube-controller-manager")
    authority.kubeconfig(layout.pki / "scheduler.kubeconfig", url, "system:kube-scheduler")
    authority.kubeconfig(layout.kubeconfig, url, "localcluster-admin", groups=("system:masters",))
    # Every request as metadata alone: the benchmarks count the writes here. Health checks and leases would drown the
    # rest.
    rules: list[dict[str, Any]] = [
        {"level": "None", "nonResourceURLs": ["/healthz*", "/readyz*", "/livez*", "/version", "/openapi*", "/api*"]},
        {
            "level": "None",
            "resources": [{"group": "coordination.k8s.io"}],
            "users": ["system:kube-controller-manager", "system:kube-scheduler"],
        },
        {"level": "Metadata", "omitStages": ["RequestReceived"]},
    ]
    policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}
    (layout.pki / "audit-policy.yaml").write_text(yaml.safe_dump(policy))


def _etcd(layout: Layout, settings: Settings, programs: dict[str, Path]) -> list[str]:
    client = f"http://127.0.0.1:{settings.ports['etcd']}"
    peer = f"http://127.0.0.1:{settings.ports['etcd-peer']}"
    return [
        str(programs["etcd"]),
        f"--data-dir={layout.root / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",  # the data is thrown away with the cluster; a power cut may lose it
        "--quota-backend-bytes=8589934592",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=5m",
        "--log-level=warn",
    ]


def _apiserver(layout: Layout, settings: Settings, programs: dict[str, Path]) -> list[str]:
    pki, full = layout.pki, settings.profile == "full"
    flags = [
        str(programs["kube-apiserver"]),
        f"--etcd-servers=http://127.0.0.1:{settings.ports['etcd']}",
        f"--bind-address={settings.server_address}",
        f"--secure-port={settings.ports['apiserver']}",
        f"--service-cluster-ip-range={settings.service_network}",
        f"--tls-cert-file={pki / 'kube-apiserver.crt'}",
        f"--tls-private-key-file={pki / 'kube-apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-jwks-uri={settings.server_url}/openid/v1/jwks",
        f"--service-account-key-file={pki / 'service-accounts.key'}",
        f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction,PodSecurity",
        "--allow-privileged=true",
        f"--audit-log-path={layout.audit_log}",
        f"--audit-policy-file={pki / 'audit-policy.yaml'}",
        f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'kubelet-client.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={pki / 'ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki / 'aggregator.crt'}",
        f"--proxy-client-key-file={pki / 'aggregator.key'}",
        "--profiling=false",
    ]
    # Without pods there is nobody to use the service `kubernetes`, and a loopback address would be refused as its
    # endpoint.
    return [*flags, f"--advertise-address={settings.gateway}" if full else "--endpoint-reconciler-type=none"]


def _controller_manager(layout: Layout, settings: Settings, programs: dict[str, Path]) -> list[str]:
    pki, kubeconfig = layout.pki, layout.pki / "controller-manager.kubeconfig"
    return [
        str(programs["kube-controller-manager"]),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={settings.ports['controller-manager']}",
        f"--cert-dir={layout.root / 'controller-manager'}",
        f"--service-account-private-key-file={pki / 'service-accounts.key'}",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--cluster-signing-cert-file={pki / 'ca.crt'}",
        f"--cluster-signing-key-file={pki / 'ca.key'}",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--profiling=false",
        # a dead node is noticed as fast as a test can wait for
        "--node-monitor-grace-period=20s",
        # scale tests create thousands of pods at once
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]


def _scheduler(layout: Layout, settings: Settings, programs: dict[str, Path]) -> list[str]:
    kubeconfig = layout.pki / "scheduler.kubeconfig"
    return [
        str(programs["kube-scheduler"]),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={settings.ports['scheduler']}",
        f"--cert-dir={layout.root / 'scheduler'}",
        "--leader-elect=false",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--profiling=false",
    ]
