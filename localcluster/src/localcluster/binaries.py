"""Where every program of the cluster comes from.

Built by Go from the pinned modules in tools/, once, into a cache outside the checkout.

In: names of programs. Out: paths of executables. KUBEBUILDER_ASSETS is searched first for the programs it may hold.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from localcluster.errors import LocalClusterError
from localcluster.longrun import watched

TOOLS = Path(__file__).resolve().parents[2] / "tools"
KUBERNETES_VERSION = "1.35.4"
GO_VERSION = "1.26"  # the newest that a module in tools/ asks for
BUILD_SPACE = 6 * 1024**3  # what Go's own caches grow by when all programs are built from nothing, bytes
FROM_ASSETS = frozenset({"kube-apiserver", "etcd", "kubectl"})  # what setup-envtest puts into KUBEBUILDER_ASSETS

_MAJOR, _MINOR, _ = KUBERNETES_VERSION.split(".")
_VERSION = "k8s.io/component-base/version"
# Without its version the API server calls itself v0.0.0-master+$Format, which Helm and others refuse.
_KUBERNETES_LDFLAGS = (
    f"-s -w -X {_VERSION}.gitVersion=v{KUBERNETES_VERSION} -X {_VERSION}.gitMajor={_MAJOR} -X"
    f" {_VERSION}.gitMinor={_MINOR}"
    f" -X {_VERSION}.gitTreeState=clean"
)


@dataclass(frozen=True)
class Program:
    """One executable: the folder under tools/ whose go.mod pins it, its package, the linker's flags, and build tags."""

    module: str
    package: str
    ldflags: str = "-s -w"
    tags: str = ""


PROGRAMS: dict[str, Program] = {
    **{
        name: Program("kubernetes", f"k8s.io/kubernetes/cmd/{name}", _KUBERNETES_LDFLAGS)
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet", "kube-proxy")
    },
    "etcd": Program("etcd", "go.etcd.io/etcd/server/v3"),
    "kwok": Program("kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    "helm": Program("helm", "helm.sh/helm/v3/cmd/helm"),
    "helm4": Program("helm4", "helm.sh/helm/v4/cmd/helm"),  # the chart is tested with both
    "coredns": Program("coredns", "github.com/coredns/coredns"),
    "registry": Program("registry", "github.com/distribution/distribution/v3/cmd/registry"),
    "kind": Program("kind", "sigs.k8s.io/kind"),
    "kueue": Program("kueue", "sigs.k8s.io/kueue/cmd/kueue"),  # a peer to be measured beside
    "promtool": Program(  # the tests of alerts alone; without the clients of twenty clouds
        "promtool", "github.com/prometheus/prometheus/cmd/promtool", tags="remove_all_sd"
    ),
    "pause": Program("pause", "."),
}
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "etcd")
API_PROFILE = (*CONTROL_PLANE, "kwok")
FULL_PROFILE = (*CONTROL_PLANE, "kubelet", "kube-proxy", "coredns", "registry", "pause", "helm")


def cache_root() -> Path:
    """The folder that outlives clusters: programs, base images and image layers."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rfuav-localcluster"


def cached_path(name: str) -> Path:
    """Where the built program lies or will lie.

    Keyed by all that goes into it (go.mod, go.sum, own sources, package, flags).
    """
    program = PROGRAMS[name]
    folder = TOOLS / program.module
    digest = hashlib.sha256()
    for source in sorted(folder.iterdir()):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    digest.update(f"{program.package}\0{program.ldflags}{program.tags and chr(0) + program.tags}".encode())
    return cache_root() / digest.hexdigest()[:16] / name


def locate(name: str) -> Path | None:
    """The program if it exists: in KUBEBUILDER_ASSETS (only what envtest ships), or in the cache."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and name in FROM_ASSETS:
        given = Path(assets) / name
        if os.access(given, os.X_OK):
            return given
    built = cached_path(name)
    return built if built.exists() else None


def ensure(names: tuple[str, ...], console: Console) -> dict[str, Path]:
    """Paths of all the named programs; missing ones are built.

    Raises LocalClusterError if Go is missing, the disk is too full, or a build fails.
    """
    missing = [name for name in names if locate(name) is None]
    if missing:
        _check_can_build(missing)
        with _only_one_builder(console):
            # programs of one module share their compiled packages, so they are built together
            for module in dict.fromkeys(PROGRAMS[name].module for name in missing):
                todo = [n for n in missing if PROGRAMS[n].module == module and locate(n) is None]
                if todo:
                    _build(todo, console)
    return {name: _located(name) for name in names}


def _located(name: str) -> Path:
    path = locate(name)
    if path is None:
        message = f"{name} was built, yet {cached_path(name)} is gone: is something else cleaning {cache_root()}?"
        raise LocalClusterError(message)
    return path


def _check_can_build(missing: list[str]) -> None:
    if shutil.which("go") is None:
        message = (
            f"Go is needed to build {', '.join(missing)}, and there is no `go` in PATH."
            f" Install Go {GO_VERSION} or later (https://go.dev/dl/),"
            " or set KUBEBUILDER_ASSETS to a folder with kube-apiserver, etcd and kubectl for those three."
            ' If Go is installed, sudo may have dropped it: `sudo -E env "PATH=$PATH" make ...` keeps PATH.'
        )
        raise LocalClusterError(message)
    place = next(p for p in (cache_root(), *cache_root().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if free < BUILD_SPACE:
        message = (
            f"Building {', '.join(missing)} needs about {BUILD_SPACE / 1024**3:.0f} GiB and {place} has"
            f" {free / 1024**3:.1f} GiB free."
            " Make room, or set XDG_CACHE_HOME and GOCACHE to a larger disk."
        )
        raise LocalClusterError(message)


@contextmanager
def _only_one_builder(console: Console) -> Iterator[None]:
    path = cache_root() / "build.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("w")
    except OSError as error:
        message = (
            f"{path} cannot be written ({error.strerror}): make {cache_root()} yours (`sudo chown -R`, if it was made"
            " with sudo), or set XDG_CACHE_HOME to a folder that you may write to."
        )
        raise LocalClusterError(message) from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("another caller is building the cluster's programs: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(names: list[str], console: Console) -> None:
    """Build programs of one module, moving each into place whole: a killed build leaves nothing half-written."""
    folder = TOOLS / PROGRAMS[names[0]].module
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
    for name in names:
        program, target = PROGRAMS[name], cached_path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        flags = ("-trimpath", "-buildvcs=false", "-mod=readonly", "-tags", program.tags, "-ldflags", program.ldflags)
        watched(
            ["go", "build", *flags, "-o", str(partial), program.package],
            f"building {name} (the first time only)",
            console,
            cwd=folder,
            environment=environment,
        )
        partial.rename(target)
