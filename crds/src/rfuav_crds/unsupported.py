"""What the schema allows but this version does not support: one table, so that nothing is silently ignored.

The operator makes a job (or pool) with such a field wait as `Misconfigured` with these messages. Building a feature
removes its row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Spec = Mapping[str, Any]
Predicate = Callable[[Any, Spec], bool]


@dataclass(frozen=True)
class Missing:
    """One thing that is not supported yet.

    Attributes:
        path: dotted path of the field below spec; the row is skipped when the field is absent.
        when: whether the field's value (first argument, the whole spec second) asks for it.
        message: what is missing and what to write instead; the path is put in front.
    """

    path: str
    when: Predicate
    message: str


def _at(spec: Any, path: str) -> Any:
    for step in path.split("."):
        if not isinstance(spec, Mapping) or step not in spec:
            return None
        spec = spec[step]
    return spec


def _file_without_mount(value: Any, spec: Spec) -> bool:
    if not str(value).startswith("file://"):
        return False
    path = str(value).removeprefix("file://").rstrip("/") + "/"
    mounts = _at(spec, "podTemplate.volumeMounts") or []
    return not any(
        path.startswith(str(mount["mountPath"]).rstrip("/") + "/") for mount in mounts if not mount.get("readOnly")
    )


def _several_without_image(value: Any, spec: Spec) -> bool:
    return int(value) > 1 and not spec.get("image")


_VIDEO = (".mp4", ".avi", ".mov", ".mkv")
_LOST = "a file:/// folder is lost with the pod: write pvc://CLAIM/path, or mount a volume there with podTemplate"

_JOB = (Missing("output.uri", _file_without_mount, _LOST),)

TABLE: dict[str, tuple[Missing, ...]] = {
    "TrainingJob": (*_JOB,),
    "InferenceJob": (
        *_JOB,
        Missing(
            "resources.gpus",
            _several_without_image,
            "a shard is classified on one GPU: write 1, and shards with parallelism to use several",
        ),
        Missing(
            "input.pattern",
            lambda value, _: str(value).lower().endswith(_VIDEO),
            "videos cannot be read yet: name pictures or raw recordings",
        ),
    ),
    "GPUPool": (),
    "GPUQuota": (),
}


def unsupported(spec: Spec, kind: str) -> list[str]:
    """What `spec` (as stored, defaults filled in) asks for that is not built yet; empty when all of it is.

    Raises:
        KeyError: when `kind` is not one of the four.
    """
    found = ((row, _at(spec, row.path)) for row in TABLE[kind])
    return [f"spec.{row.path}: {row.message}" for row, value in found if value is not None and row.when(value, spec)]
