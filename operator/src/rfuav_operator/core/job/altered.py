"""Whether the cluster made a pod that is too different from the manifest: webhooks change pods as they are created.

Most changes are welcome: sidecars, tolerations, a command that is wrapped, other requests. A few make it a pod that is
not recognised, does not know its job, or has GPUs that nobody counted.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from rfuav_crds import contract

_Object = Mapping[str, Any]
_PREFIX = f"{contract.GROUP}/"
_VARIABLES = frozenset(
    {
        contract.JOB,
        contract.MOUNTS,
        contract.PROGRESS_URL,
        contract.PROGRESS_CA,
        contract.PROGRESS_TOKEN,
        contract.VISIBLE_DEVICES,
    }
)


def altered(asked: _Object, made: _Object) -> str:
    """What was changed although the job depends on it, in words; empty: nothing.

    Args:
        asked: the manifest.
        made: the pod as the API server answered.
    """
    return next(_changes(asked, made), "")


def _changes(asked: _Object, made: _Object) -> Iterator[str]:
    was, now = asked["metadata"], made["metadata"]
    labels = now.get("labels") or {}
    for key, value in (was.get("labels") or {}).items():
        if key.startswith(_PREFIX) and labels.get(key) != value:
            yield f"its label {key}"
    owners = {owner.get("uid") for owner in now.get("ownerReferences") or () if owner.get("controller")}
    if any(owner["uid"] not in owners for owner in was.get("ownerReferences") or ()):
        yield "its owner"
    spec, done = asked.get("spec") or {}, made.get("spec") or {}
    if "restartPolicy" in spec and done.get("restartPolicy") != spec["restartPolicy"]:
        yield "its restartPolicy"
    containers = {one.get("name"): one for one in done.get("containers") or ()}
    for one in spec.get("containers") or ():
        name = one["name"]
        if name not in containers:
            yield f"the name of its container {name}"
            return
        yield from (f"{what} of its container {name}" for what in _of_container(one, containers[name]))


def _of_container(asked: _Object, made: _Object) -> Iterator[str]:
    env = _values(made)
    yield from (f"the variable {name}" for name, value in _values(asked).items() if env.get(name) != value)
    if _gpus(asked) != _gpus(made):
        yield "the GPUs"


def _values(container: _Object) -> dict[str, str]:
    """The operator's own variables, as the process sees them: of several with one name, the last."""
    return {one["name"]: one.get("value", "") for one in container.get("env") or () if one["name"] in _VARIABLES}


def _gpus(container: _Object) -> str:
    resources = container.get("resources") or {}
    return str((resources.get("limits") or {}).get(contract.GPU, "0"))
