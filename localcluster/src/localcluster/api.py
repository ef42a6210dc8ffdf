"""The tool from Python: what fixtures, the demo and the command line call.

In: a name and a profile. Out: a `Cluster`: its kubeconfig, its registry, its programs.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from localcluster import (
    addons,
    binaries,
    cleanup,
    controlplane,
    fullnode,
    hostcheck,
    kindcluster,
    kwok,
    links,
    selection,
    state,
)
from localcluster.errors import LocalClusterError
from localcluster.state import Backend, Layout, Profile, Settings


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    name: str
    kubeconfig: Path
    registry: str | None = (
        None  # host:port for images, plain HTTP; None where there are no real nodes or they are not ours
    )
    audit_log: Path | None = None  # one JSON object a request; None where the API server is not ours
    programs: dict[str, Path] = field(default_factory=dict)  # kubectl, helm, ...


def _console() -> Console:
    return Console(stderr=True)  # stdout is for answers alone


def up(
    name: str,
    profile: Profile = "api",
    *,
    nodes: int = 1,
    use_kubeconfig: bool | None = None,
    console: Console | None = None,
) -> Cluster:
    """Bring a cluster up, or its missing parts; returns immediately if all of it runs.

    `nodes`: real nodes of the full profile. `use_kubeconfig`: take the cluster of $KUBECONFIG instead (None: as
    $RFUAV_USE_KUBECONFIG says).
    Raises LocalClusterError with the remedy in its message.
    """
    console = console or _console()
    started = time.monotonic()
    choice = selection.choose(profile, use_kubeconfig=use_kubeconfig)
    console.print(choice.reason)
    if choice.kubeconfig is not None:
        return Cluster(name, choice.kubeconfig)
    layout = Layout.of(name)
    with state.locked(name):
        if profile == "full":
            hostcheck.require_root()
            hostcheck.require_cgroups()
            if choice.kind == "embedded":  # before the addresses are chosen: `ip` shows which are in use
                hostcheck.require_packages(hostcheck.NODE_COMMANDS, console, plugins=True)
        if not layout.settings_file.exists():  # an existing cluster has its images, and `up` must be able to restore it
            hostcheck.require_space(layout.root, profile)
        settings = _settings(layout, profile, nodes, choice.kind)
        programs = binaries.ensure(_program_names(settings), console)
        if settings.backend == "kind":
            settings = kindcluster.up(layout, settings, programs)
            console.print(f"cluster {name} (kind) is up after {time.monotonic() - started:.1f} s")
            return _cluster(layout, settings, programs)
        if settings.profile == "full":
            hostcheck.require_packages(hostcheck.NODE_COMMANDS, console, plugins=True)
            links.ensure_bridge(layout, settings)
        controlplane.start(layout, settings, programs)
        if settings.profile == "api":
            kwok.start(layout, settings, programs)
        else:
            _start_nodes(layout, settings, programs)
    console.print(f"cluster {name} ({settings.profile}) is up after {time.monotonic() - started:.1f} s")
    return _cluster(layout, settings, programs)


def _start_nodes(layout: Layout, settings: Settings, programs: dict[str, Path]) -> None:
    addons.start_registry(layout, settings, programs)
    for index in range(settings.nodes):
        fullnode.start(layout, settings, programs, index)
        addons.start_gpus(layout, index)
    addons.start_dns(layout, settings, programs)
    addons.start_volumes(layout, programs)
    for index in range(settings.nodes):
        addons.wait_for_node(layout, programs, index)


def down(name: str) -> None:
    """Take the cluster down and leave nothing of it; a given cluster (of $KUBECONFIG) is never touched.

    Safe to repeat.
    """
    with state.locked(name):
        layout = Layout.of(name)
        settings = state.peek(layout)
        if settings is not None and settings.backend == "kind":
            kindcluster.down(layout)
        cleanup.destroy(layout)


def get(name: str) -> Cluster | None:
    """The cluster of that name if its API server answers."""
    layout = Layout.of(name)
    settings = state.load(layout)
    if settings is None:
        return None
    programs = {n: path for n in _program_names(settings) if (path := binaries.locate(n)) is not None}
    if settings.backend == "kind":
        ready = kindcluster.is_ready(layout, programs)
    else:
        ready = controlplane.is_ready(layout, settings)
    return _cluster(layout, settings, programs) if ready else None


def _program_names(settings: Settings) -> tuple[str, ...]:
    if settings.backend == "kind":
        return kindcluster.PROGRAMS
    return binaries.API_PROFILE if settings.profile == "api" else binaries.FULL_PROFILE


def _settings(layout: Layout, profile: Profile, nodes: int, kind: str) -> Settings:
    """Those of the first `up`; asking for another shape of a cluster that exists is an error, not a surprise."""
    known = state.load(layout)
    if known is None:
        backend: Backend = "kind" if kind == "kind" else "embedded"
        return state.choose(layout, profile, nodes, links.used_networks(), backend)
    if (known.profile, known.nodes) != (profile, nodes):
        message = (
            f"Cluster {layout.name} is up with profile {known.profile} and {known.nodes} node(s), asked for were"
            f" {profile} and {nodes}:"
            f" take it down first (`localcluster down --name {layout.name}`) or choose another --name."
        )
        raise LocalClusterError(message)
    return known


def _cluster(layout: Layout, settings: Settings, programs: dict[str, Path]) -> Cluster:
    audit_log = layout.audit_log if settings.backend == "embedded" else None
    return Cluster(layout.name, layout.kubeconfig, settings.registry, audit_log, programs)
