"""Taking a cluster down: whatever state it is in, also half-made or half-dead, nothing of it stays on the machine.

Everything a cluster owns carries its mark: processes in their environment, links in their alias, control groups in
their name, files in its folder.
Mounts, network namespaces and packet-filter rules exist only inside its nodes' namespaces, and go with the nodes'
first processes.
"""

import os
import shutil
import time
from pathlib import Path

from localcluster import links, processes, state
from localcluster.errors import LocalClusterError
from localcluster.state import Layout

CGROUPS = Path("/sys/fs/cgroup")


def destroy(layout: Layout) -> None:
    """Remove the cluster. Safe to call twice, and for a cluster that never was."""
    processes.kill_all(layout)
    if os.geteuid() == 0:
        links.remove_all(layout, state.peek(layout))
        _remove_cgroups(layout)
    _remove_folder(layout)


def cgroup_name(layout: Layout) -> str:
    """The control group everything on the cluster's nodes runs under."""
    return f"rfuav-localcluster-{layout.id}"


def cgroup_folders(layout: Layout) -> list[Path]:
    """The cluster's control group in each hierarchy it exists in: one with cgroup v2, one a controller with v1."""
    name = cgroup_name(layout)
    return [p for p in (CGROUPS / name, *CGROUPS.glob(f"*/{name}")) if p.is_dir() and not p.parent.is_symlink()]


def _remove_cgroups(layout: Layout, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while folders := cgroup_folders(layout):
        for top in folders:
            for folder, _, _ in os.walk(top, topdown=False):
                try:
                    Path(folder).rmdir()
                except OSError:
                    continue  # its last process is still going: the next round
        if time.monotonic() > deadline:
            message = (
                f"Control groups of cluster {layout.name} cannot be removed: {', '.join(map(str, folders))}. Run"
                f" `down` again."
            )
            raise LocalClusterError(message)
        time.sleep(0.02)


def _remove_folder(layout: Layout) -> None:
    """Delete the folder, but never through a mount: that would delete the mounted files."""
    inside = [m for m in _mount_points() if m.is_relative_to(layout.root)]
    if inside:
        message = (
            f"Something is mounted inside {layout.root}: {', '.join(map(str, inside))}. Unmount it, then run `down`"
            f" again."
        )
        raise LocalClusterError(message)
    if layout.root.exists():
        shutil.rmtree(layout.root)
    (layout.root.parent / f".{layout.name}.lock").unlink(missing_ok=True)


def _mount_points() -> list[Path]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [Path(line.split(" ")[1].encode().decode("unicode_escape")) for line in lines]
