"""The local cache of the Hugging Face hub, in the layout of its own tools: hf:// without a network.

In: HF_HUB_CACHE or HF_HOME, which the job sets; HF_HUB_OFFLINE. Out: the folder of a repository's snapshot, or None if
the files must come from the hub.
"""

from __future__ import annotations

import os
from pathlib import Path

import structlog

from rfuav_trainer.errors import InputError

log = structlog.get_logger()

KINDS = {"datasets": "dataset", "spaces": "space"}
REVISION = "main"


def find(uri: str, where: str) -> Path | None:
    """The path of `uri` (hf://datasets/owner/name/path, or hf://owner/name/path for a model) in the local cache.

    A cached repository is never downloaded. Others come from the hub, unless HF_HUB_OFFLINE=1. Without HF_HUB_CACHE and
    HF_HOME there is no cache.

    Raises:
        InputError: the hub is forbidden and the repository is not cached, or it is cached without that path.
    """
    cache, offline = _cache(), os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    steps = uri.removeprefix("hf://").rstrip("/").split("/")
    kind = steps.pop(0) if steps[0] in KINDS else "models"
    repository, inside = "/".join(steps[:2]), "/".join(steps[2:])
    download = f"hf download {repository}" + (f" --repo-type {KINDS[kind]}" if kind in KINDS else "")
    snapshot = None if cache is None else _snapshot(cache / "--".join([kind, *steps[:2]]))
    if snapshot is not None:
        found = snapshot / inside
        if not found.exists():
            raise InputError(
                f"{where}: {uri} is not in the local cache: {snapshot} has no {inside}: put it there ({download}), "
                "correct the path, or unset HF_HOME and HF_HUB_CACHE to download from the hub"
            )
        log.info("using the local cache of the hub", uri=uri, folder=str(found))
        return found
    if offline:
        there = (
            f"not in {cache}" if cache is not None else "not available offline: neither HF_HOME nor HF_HUB_CACHE is set"
        )
        raise InputError(
            f"{where}: {uri} is {there}, and HF_HUB_OFFLINE=1 forbids downloads: put it there ({download}), or mount a "
            "volume that contains it and set HF_HOME to its path (podTemplate.env)"
        )
    return None


def _snapshot(repository: Path) -> Path | None:
    """The folder with the files of a cached repository; None if it is missing or incomplete."""
    try:
        found = repository / "snapshots" / (repository / "refs" / REVISION).read_text().strip()
    except OSError:
        return None
    return found if found.is_dir() else None


def _cache() -> Path | None:
    """The folder with the repositories; None if the job does not set one."""
    named, home = os.environ.get("HF_HUB_CACHE"), os.environ.get("HF_HOME")
    return Path(named) if named else Path(home) / "hub" if home else None
