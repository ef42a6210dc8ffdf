"""The job: its identity, its specification, and the folders where its claims are mounted.

In: a YAML file (laptop) or the environment variable RFUAV_JOB (pod). Out: a checked `Job`. Every problem is an error
that names the field.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfuav_crds import (
    API_VERSION,
    GROUP,
    InferenceJobSpec,
    JobError,
    TrainingJobSpec,
    changed,
    contract,
    load_job,
    read_job,
    reasons,
)
from rfuav_crds.iq import DEFAULT_SAMPLE_RATE
from rfuav_crds.unsupported import unsupported
from rfuav_trainer.errors import InvalidConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MOUNTS = f"{GROUP}/local-mounts"
"""Annotation of a job file: lines CLAIM=FOLDER, the local folders to use for claims. A cluster ignores it."""


@dataclass(frozen=True)
class Job:
    """One attempt of a job.

    Attributes:
        kind: TrainingJob or InferenceJob.
        name: the job's name.
        namespace: its namespace; empty on a laptop.
        uid: distinguishes jobs of the same name; on a laptop `local-<name>`.
        attempt: counts from 1.
        shard: the part of the input that this process classifies (InferenceJob), from 0.
        spec: the checked specification, defaults filled in.
        mounts: claim name to the folder where it is mounted.
        in_pod: whether the job came from the operator.
        unique: whether the UID is the API server's: it then stands for one job, whose spec never changes, and what has
            finished stays finished. On a laptop the same name is run again with other files.
    """

    kind: str
    name: str
    namespace: str
    uid: str
    attempt: int
    shard: int
    spec: TrainingJobSpec | InferenceJobSpec
    mounts: Mapping[str, Path] = field(default_factory=dict)
    in_pod: bool = False
    unique: bool = True

    def fingerprint(self) -> str:
        """Short hash of the fields that affect the result, without scheduling fields such as pool or resources."""
        fields = ("model", "dataset", "training", "input", "iq", "precision", "errorThreshold", "shards")
        spec = self.spec.model_dump(mode="json", by_alias=True)
        chosen = {key: spec[key] for key in fields if key in spec}
        if chosen.get("dataset", {}).get("recordingPattern", "") is None:
            del chosen["dataset"]["recordingPattern"]  # as before there was this field
        if chosen["model"].get("config", "") is None:
            del chosen["model"]["config"]  # the same
        for iq in (chosen.get("iq"), chosen.get("dataset", {}).get("iq")):
            if iq:  # the same
                iq["sampleRate"] = iq["sampleRate"] or DEFAULT_SAMPLE_RATE
                for name, before in (("channel", 0), ("channels", 1)):
                    if iq[name] == before:
                        del iq[name]
        if chosen.get("dataset", {}).get("labels") == "folders":
            del chosen["dataset"]["labels"]  # the same
        chosen["annotate"] = spec["output"].get("annotate")
        chosen.get("training", {}).pop("workers", None)  # the number of readers affects the speed, not the result
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]


def from_file(
    path: Path, *, mounts: Mapping[str, Path] | None = None, changes: Iterable[str] = (), shard: int = 0
) -> Job:
    """The job in a YAML file, for use outside a cluster.

    Args:
        path: the file. Its annotation `rfuav.io/local-mounts` may name the local folders of claims.
        mounts: claim name to local folder; these take precedence over the annotation.
        changes: PATH=VALUE, other values for fields of its spec.
        shard: the part of the input to classify.

    Raises:
        InvalidConfigurationError: the file or a field in it is wrong.
    """
    try:
        manifest = changed(read_job(path), changes)
    except JobError as error:
        raise InvalidConfigurationError(str(error)) from error
    return from_manifest(
        manifest, mounts={**local_mounts(manifest, path.absolute().parent), **(mounts or {})}, shard=shard
    )


def local_mounts(manifest: Mapping[str, Any], base: Path) -> dict[str, Path]:
    """The local folders that the annotation `rfuav.io/local-mounts` of a job names, relative to `base`.

    Raises:
        InvalidConfigurationError: a line of it is not CLAIM=FOLDER.
    """
    try:
        text = manifest["metadata"]["annotations"][MOUNTS]
    except (KeyError, TypeError):
        return {}
    lines = [line for line in str(text).splitlines() if line.strip()]
    return {claim: base / folder for claim, folder in map(read_mount, lines)}


def read_mount(text: str) -> tuple[str, Path]:
    """The claim and the folder in CLAIM=FOLDER.

    Raises:
        InvalidConfigurationError: it is something else.
    """
    claim, found, folder = text.strip().partition("=")
    if not (found and claim and folder):
        raise InvalidConfigurationError(f"--mount {text}: write CLAIM=FOLDER, as in captures=./data")
    return claim, Path(folder)


def from_manifest(manifest: Mapping[str, Any], *, mounts: Mapping[str, Path], shard: int = 0) -> Job:
    """The job that the content of a YAML file describes, for use outside a cluster.

    Raises:
        InvalidConfigurationError: a field is wrong.
    """
    try:
        job = load_job(manifest)
    except JobError as error:
        raise InvalidConfigurationError(str(error)) from error
    name, namespace = job.metadata.name, job.metadata.namespace
    uid = (job.metadata.model_extra or {}).get("uid")
    return _checked(
        Job(
            job.kind,
            name,
            namespace,
            str(uid or f"local-{name}"),
            1,
            shard,
            job.spec,
            dict(mounts),
            unique=bool(uid),
        ),
    )


def from_environment(environment: Mapping[str, str] = os.environ) -> Job:
    """The job that the operator passed to this pod (RFUAV_JOB, and RFUAV_MOUNTS with the folders of the claims).

    Raises:
        InvalidConfigurationError: the variable is missing or a field in it is wrong.
    """
    text = environment.get(contract.JOB)
    if not text:
        raise InvalidConfigurationError("no job: name a file with -f job.yaml (in a pod the operator sets RFUAV_JOB)")
    try:
        given: dict[str, Any] = json.loads(text)
        mounts = {claim: Path(folder) for claim, folder in json.loads(environment.get(contract.MOUNTS, "{}")).items()}
        identity = {key: given[key] for key in ("kind", "name", "uid")}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InvalidConfigurationError(
            "RFUAV_JOB must be a JSON object with kind, name, namespace, uid, attempt and spec, and RFUAV_MOUNTS one "
            f"that maps claims to folders ({error!r}): the versions of operator and trainer image do not match",
        ) from error
    metadata = {"name": identity["name"], "namespace": given.get("namespace", "")}
    spec = _resolved(given.get("spec"))
    try:
        job = load_job({"apiVersion": API_VERSION, "kind": identity["kind"], "metadata": metadata, "spec": spec})
    except JobError as error:
        raise InvalidConfigurationError(str(error)) from error
    return _checked(
        Job(
            kind=job.kind,
            name=str(identity["name"]),
            namespace=str(given.get("namespace", "")),
            uid=str(identity["uid"]),
            attempt=int(given.get("attempt", 1)),
            shard=int(given.get("shard") or 0),
            spec=job.spec,
            mounts=mounts,
            in_pod=True,
        ),
    )


def _resolved(spec: Any) -> Any:
    """The spec without fromTrainingJob where the operator has added weights: a user may write only one of them."""
    model = spec.get("model") if isinstance(spec, dict) else None
    if not isinstance(model, dict) or "weights" not in model or "fromTrainingJob" not in model:
        return spec
    return {**spec, "model": {key: value for key, value in model.items() if key != "fromTrainingJob"}}


def _checked(job: Job) -> Job:
    spec = job.spec.model_dump(mode="json", by_alias=True)
    if not job.in_pod and spec["output"]["uri"].startswith("file://"):
        del spec["output"]  # a pod would lose it, a laptop keeps it
    problems = unsupported(spec, job.kind)
    if problems:
        raise InvalidConfigurationError("\n".join(problems), reason=reasons.UNSUPPORTED)
    if isinstance(job.spec, InferenceJobSpec) and not 0 <= job.shard < job.spec.shards:
        raise InvalidConfigurationError(
            f"shard {job.shard} does not exist: spec.shards is {job.spec.shards}, counted from 0"
        )
    return job
