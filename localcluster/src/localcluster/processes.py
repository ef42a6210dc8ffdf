"""The cluster's processes on the host.

The process table itself is the record: each carries its cluster and its component in its environment.

In: a command. Out: a daemon that outlives the caller and can be found again after any crash, because no pid file can
be stale.
"""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from localcluster.errors import LocalClusterError
from localcluster.state import Layout

_CLUSTER, _COMPONENT = "RFUAV_LOCALCLUSTER", "RFUAV_LOCALCLUSTER_COMPONENT"
_EMPTY_LOOKS = 3


@dataclass(frozen=True)
class Process:
    """One running process of a cluster."""

    pid: int
    component: str


def running(layout: Layout) -> list[Process]:
    """All processes of the cluster that this user may see, children included."""
    wanted = f"{_CLUSTER}={layout.root}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # gone meanwhile, or another user's
            continue
        if wanted in variables:
            prefix = f"{_COMPONENT}=".encode()
            component = next((v[len(prefix) :].decode() for v in variables if v.startswith(prefix)), "?")
            found.append(Process(int(entry.name), component))
    return found


def is_running(layout: Layout, component: str) -> bool:
    """Whether any process of the component lives."""
    return any(p.component == component for p in running(layout))


def log_path(layout: Layout, component: str) -> Path:
    """Where a component's output goes."""
    return layout.logs / f"{component}.log"


def start(
    layout: Layout, component: str, command: list[str], *, extra_environment: dict[str, str] | None = None
) -> None:
    """Start a daemon unless the component runs already. Its output is appended to logs/<component>.log.

    Daemons get a bare environment: a proxy or a KUBECONFIG of the caller's must not leak into the cluster.
    """
    if is_running(layout, component):
        return
    layout.logs.mkdir(parents=True, exist_ok=True)
    environment = {
        "PATH": os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin",
        "HOME": str(layout.root),
        **(extra_environment or {}),
        _CLUSTER: str(layout.root),
        _COMPONENT: component,
    }
    with log_path(layout, component).open("ab") as log:
        # setsid --fork hands the daemon to init: it outlives the caller and never becomes its zombie
        subprocess.run(
            ["setsid", "--fork", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=layout.root,
            env=environment,
            check=True,
        )


def kill_all(layout: Layout, timeout: float = 20.0) -> int:
    """Kill every process of the cluster and wait until none is left. Returns how many there were.

    SIGKILL at once: all they hold is thrown away with the folder. Again and again, because a child may have been
    born meanwhile.
    """
    deadline = time.monotonic() + timeout
    seen: set[int] = set()
    empty_looks = 0
    while empty_looks < _EMPTY_LOOKS:
        left = running(layout)
        # a process between fork and exec has no environment for an instant, so one empty look proves nothing
        empty_looks = 0 if left else empty_looks + 1
        for process in left:
            seen.add(process.pid)
            _kill(process.pid, layout)
        if time.monotonic() > deadline:
            pids = sorted(p.pid for p in left)
            raise LocalClusterError(
                f"Processes {pids} of cluster {layout.name} do not die; see `ps`, then run `down` again."
            )
        time.sleep(0.03)
    return len(seen)


def _kill(pid: int, layout: Layout) -> None:
    """SIGKILL through a pid file descriptor, checked again after it was opened.

    A pid that was given to someone else is never hit.
    """
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if f"{_CLUSTER}={layout.root}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        pass  # gone between two looks
    finally:
        os.close(handle)


def tail(layout: Layout, component: str, lines: int = 15) -> str:
    """The last lines of a component's log, for error messages."""
    try:
        return "\n".join(log_path(layout, component).read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"
