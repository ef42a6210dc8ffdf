"""What a cluster of ours is on disk: a folder of its own with its settings, certificates, data and logs.

In: a name. Out: a `Layout` of paths, and the settings that are chosen once (profile, address block, ports) and kept
until `down`.
"""

import fcntl
import hashlib
import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Literal, TextIO

from localcluster.errors import LocalClusterError

Profile = Literal["api", "full"]
Backend = Literal["embedded", "kind"]

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,18}[a-z0-9])?")
_PORTS = (
    "apiserver",
    "etcd",
    "etcd-peer",
    "controller-manager",
    "scheduler",
    "kwok",
    "registry",
    "coredns",
    "coredns-health",
)
_SLOTS_LOCK = "_slots"  # a name that no cluster can have
_FIRST_PORT, _PORTS_A_SLOT, SLOTS = 21000, 20, 100  # 21000-22999: below Linux' ephemeral ports


def state_root() -> Path:
    """The folder that holds one folder a cluster."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return (Path(base) / "rfuav-localcluster").resolve()


def check_name(name: str) -> str:
    """The name itself, or an error that says which names there are."""
    if not _NAME.fullmatch(name):
        message = (
            f"{name!r} cannot name a cluster: use at most 20 lower-case letters, digits and '-', beginning with a"
            f" letter (for example 'rfuav')."
        )
        raise LocalClusterError(message)
    return name


@dataclass(frozen=True)
class Layout:
    """The folders and files of one cluster."""

    name: str
    root: Path

    @classmethod
    def of(cls, name: str) -> "Layout":
        """The layout of the cluster called `name`, whether it exists or not."""
        return cls(check_name(name), state_root() / name)

    @property
    def id(self) -> str:
        """Names what the cluster owns outside its folder (cgroups, links).

        Unique even where two state roots hold the same name.
        """
        return f"{self.name}-{hashlib.sha256(str(self.root).encode()).hexdigest()[:6]}"

    @property
    def settings_file(self) -> Path:
        """Written before anything is started."""
        return self.root / "cluster.json"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.root / "kubeconfig"

    @property
    def pki(self) -> Path:
        """Certificates, keys and the components' kubeconfigs."""
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        """One file a component."""
        return self.root / "logs"

    @property
    def audit_log(self) -> Path:
        """Every request but reads of health, one JSON object a line."""
        return self.logs / "audit.log"

    @property
    def volumes(self) -> Path:
        """What the default StorageClass hands out lies here, one folder a volume, shared by all nodes."""
        return self.root / "volumes"

    def node(self, index: int) -> Path:
        """What one real node keeps on disk."""
        return self.root / "nodes" / f"node-{index}"


@dataclass(frozen=True)
class Settings:
    """Chosen at the first `up` and kept: a second `up` finds the same addresses and ports."""

    profile: Profile
    slot: int
    nodes: int
    ports: dict[str, int] = field(default_factory=dict)
    backend: Backend = "embedded"
    registry_host: str = ""  # where the registry listens when it is not the cluster's own bridge

    @property
    def block(self) -> IPv4Network:
        """The cluster's addresses: 10.(128+slot).0.0/16 split into nodes, services and pods."""
        return IPv4Network(f"10.{128 + self.slot}.0.0/16")

    @property
    def node_network(self) -> IPv4Network:
        """The host and the nodes."""
        return IPv4Network((int(self.block.network_address), 24))

    @property
    def gateway(self) -> IPv4Address:
        """The host as the nodes see it: here listen the API server, the registry and the DNS server."""
        return self.node_network[1]

    def node_address(self, index: int) -> IPv4Address:
        """The address of a node, counted from 0."""
        return self.node_network[10 + index]

    @property
    def service_network(self) -> IPv4Network:
        """Cluster addresses of services."""
        return IPv4Network((int(self.block[128 * 256]), 20))

    @property
    def pod_network(self) -> IPv4Network:
        """All nodes' pods."""
        return IPv4Network((int(self.block[64 * 256]), 18))

    def node_pods(self, index: int) -> IPv4Network:
        """The addresses of one node's pods."""
        return IPv4Network((int(self.pod_network[index * 256]), 24))

    @property
    def dns_address(self) -> IPv4Address:
        """The cluster address of the DNS service."""
        return self.service_network[10]

    @property
    def server_address(self) -> str:
        """Where the API server listens: loopback alone unless real nodes must reach it."""
        return str(self.gateway) if self.profile == "full" else "127.0.0.1"

    @property
    def server_url(self) -> str:
        """The API server."""
        return f"https://{self.server_address}:{self.ports['apiserver']}"

    @property
    def registry(self) -> str | None:
        """`host:port` that images are pushed to and pulled from by the nodes, as plain HTTP.

        None on the api profile.
        """
        return f"{self.registry_host or self.gateway}:{self.ports['registry']}" if self.profile == "full" else None


def load(layout: Layout) -> Settings | None:
    """The cluster's settings, None when it was never brought up."""
    try:
        settings = Settings(**json.loads(layout.settings_file.read_text()))
    except FileNotFoundError:
        return None
    except (TypeError, ValueError) as error:
        raise _unreadable(layout, str(error)) from error
    if missing := sorted(set(_PORTS) - settings.ports.keys()):
        raise _unreadable(layout, f"another version made it, which knew no port of {', '.join(missing)}")
    return settings


def _unreadable(layout: Layout, why: str) -> LocalClusterError:
    return LocalClusterError(
        f"{layout.settings_file} cannot be read ({why}): run `localcluster down --name {layout.name}`, then `up` again."
    )


def peek(layout: Layout) -> Settings | None:
    """The cluster's settings if there are any that can be read: broken ones keep nobody from looking or taking down."""
    try:
        return load(layout)
    except LocalClusterError:
        return None


def save(layout: Layout, settings: Settings) -> None:
    """Write the settings whole or not at all."""
    layout.root.mkdir(parents=True, exist_ok=True)
    partial = layout.settings_file.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(settings), indent=1))
    partial.rename(layout.settings_file)


def all_names() -> list[str]:
    """Names of the clusters that have a folder."""
    root = state_root()
    return sorted(p.name for p in root.iterdir() if p.is_dir()) if root.exists() else []


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Only one `up` or `down` of a cluster at a time; others print that they wait."""
    path = state_root() / f".{name}.lock"
    while True:
        with _open_lock(path) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if name != _SLOTS_LOCK:  # held for an instant
                    print(f"another up or down of cluster {name} is running: waiting for it", file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
            # `down` removes the file while it holds it, and a lock on a file that is gone keeps nobody out
            if _is_still(path, lock):
                yield
                return


def _open_lock(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w")
    except OSError as error:
        message = (
            f"{path} cannot be written ({error.strerror}). What was made with sudo is handled with sudo (`sudo -E`);"
            f" for clusters of your own elsewhere set XDG_STATE_HOME to a folder that you may write to."
        )
        raise LocalClusterError(message) from error


def _is_still(path: Path, opened: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(opened.fileno()))
    except FileNotFoundError:
        return False


def choose(
    layout: Layout, profile: Profile, nodes: int, used_networks: list[IPv4Network], backend: Backend = "embedded"
) -> Settings:
    """Pick a slot (an address block and a range of ports) nobody uses, and record it before anything is started.

    `used_networks`: the host's routes; a block that overlaps one is left alone.
    """
    with locked(_SLOTS_LOCK):
        taken = {s.slot for name in all_names() if (s := load(Layout.of(name))) is not None}
        for slot in range(SLOTS):
            first = _FIRST_PORT + slot * _PORTS_A_SLOT
            settings = Settings(profile, slot, nodes, {name: first + i for i, name in enumerate(_PORTS)}, backend)
            busy = slot in taken or any(settings.block.overlaps(network) for network in used_networks)
            if not busy and all(port_is_free(port) for port in settings.ports.values()):
                save(layout, settings)
                return settings
    message = (
        f"No free slot for another cluster: {len(taken)} are up ({', '.join(sorted(all_names()))}), and the other"
        f" address blocks of 10.128.0.0/9"
        f" or ports {_FIRST_PORT}-{_FIRST_PORT + SLOTS * _PORTS_A_SLOT - 1} are in use. Take one down."
    )
    raise LocalClusterError(message)


def port_is_free(port: int) -> bool:
    """Whether a server could listen on the TCP port on every address of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - a probe: closed at once, never listens
        except OSError:
            return False
    return True
