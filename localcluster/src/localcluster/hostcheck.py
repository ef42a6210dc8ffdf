"""What the full profile needs from the machine, checked before anything is started.

Root, Debian packages, disk, control groups.

In: nothing. Out: a machine that has what it takes, or an error that says what to do. Missing packages are installed
with apt.
"""

import os
import shutil
import subprocess
from pathlib import Path

from rich.console import Console

from localcluster.errors import LocalClusterError
from localcluster.state import Profile

NODE_COMMANDS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
IMAGE_COMMANDS = {"buildah": "buildah", "debootstrap": "debootstrap"}
_CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
_CNI_PACKAGE = "containernetworking-plugins"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SPACE = {  # bytes
    "api": 1024**3 // 2,  # etcd's data and the audit log of a long run
    "full": 10 * 1024**3,  # a base system and one image with torch, pushed and unpacked
}


def require_root() -> None:
    """Real nodes mount file systems and make network links."""
    if os.geteuid() != 0:
        raise LocalClusterError(
            "The full profile runs real nodes and needs root: run it with `sudo -E`, or use `--profile api` (no"
            " nodes, no root)."
        )


def require_space(folder: Path, profile: Profile = "full") -> None:
    """Images are large: say so before the disk is full."""
    place = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(place).free
    if free < _SPACE[profile]:
        raise LocalClusterError(
            f"The {profile} profile needs about {_SPACE[profile] / 1024**3:g} GiB and {place} has"
            f" {free / 1024**3:.1f} GiB free:"
            " make room, or set XDG_STATE_HOME and XDG_CACHE_HOME to folders on a larger disk."
        )


def require_cgroups() -> None:
    """Pods' limits are control groups."""
    root = Path("/sys/fs/cgroup")
    controllers = root / "cgroup.controllers"
    have = set(controllers.read_text().split()) if controllers.exists() else {p.name for p in root.glob("*")}
    missing = {"cpu", "memory", "pids"} - have
    if missing:
        raise LocalClusterError(
            f"The full profile limits pods by control groups, and {root} lacks {', '.join(sorted(missing))}."
            " In a container run with `--privileged --cgroupns=host`; else boot with"
            " systemd.unified_cgroup_hierarchy=1."
        )


def require_packages(commands: dict[str, str], console: Console, *, plugins: bool = False) -> None:
    """Install missing packages with apt-get; if that is impossible, name them.

    `commands`: each with the Debian package that brings it; `plugins`: the CNI plugins too.
    """
    missing = _missing(commands, plugins=plugins)
    if not missing:
        return
    names = " ".join(missing)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        why = "there is no apt-get here" if os.geteuid() == 0 else "installing them needs root"
        raise LocalClusterError(
            f"These packages are missing, and {why}: {names} (Debian's names). Install them and run this again."
        )
    console.print(f"installing with apt-get: {names}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    for command in (["apt-get", "update"], install):
        result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        # an update that fails for one of several sources may still have found all that is needed
        if result.returncode != 0 and command is install:
            raise LocalClusterError(f"`{' '.join(command)}` failed:\n{result.stderr.strip()[-2000:]}")
    still = _missing(commands, plugins=plugins)
    if still:
        raise LocalClusterError(f"apt-get installed {names}, yet {' '.join(still)} did not bring what was expected.")


def environment() -> dict[str, str]:
    """The caller's environment with the system's own commands in PATH, which `su` does not put there."""
    return {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATH}"}


def cni_folder() -> Path:
    """Where the CNI plugins are."""
    found = _find_cni()
    if found is None:
        raise LocalClusterError(f"The CNI plugins are missing: install the package {_CNI_PACKAGE}.")
    return found


def _missing(commands: dict[str, str], *, plugins: bool) -> list[str]:
    packages = {package for command, package in commands.items() if not _has(command)}
    if plugins and _find_cni() is None:
        packages.add(_CNI_PACKAGE)
    return sorted(packages)


def _has(command: str) -> bool:
    return shutil.which(command) is not None or shutil.which(command, path=_SYSTEM_PATH) is not None


def _find_cni() -> Path | None:
    return next((folder for folder in _CNI_FOLDERS if (folder / "ptp").exists()), None)
