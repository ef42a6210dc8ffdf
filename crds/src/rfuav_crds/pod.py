"""`podTemplate`: the closed list of what a user may set in the pods."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from rfuav_crds import contract
from rfuav_crds.common import Label, ObjectName, OptionalObjectName, Spec
from rfuav_crds.quantity import MemoryText
from rfuav_crds.rules import ATOMIC, Rule, listed_by, matches

Text = Annotated[str, Field(max_length=4096)]
ShortText = Annotated[str, Field(max_length=253)]
LABEL_KEY = "([a-zA-Z0-9]([-a-zA-Z0-9.]{0,251}[a-zA-Z0-9])?/)?[a-zA-Z0-9]([-a-zA-Z0-9_.]{0,61}[a-zA-Z0-9])?"
LABEL_VALUE = "([a-zA-Z0-9]([-a-zA-Z0-9_.]{0,61}[a-zA-Z0-9])?)?"


def _all_match(pattern: str, items: str, message: str) -> Rule:
    """A rule over the keys of a map (`items` = `k`) or its values (`self[k]`)."""
    one = matches(pattern, message)
    return Rule(
        cel=f"self.all(k, {items}.matches(r'^(?:{pattern})$'))",
        message=message,
        check=lambda value: not any(one.broken_by(text) for text in (value if items == "k" else value.values())),
    )


KEYS = _all_match(
    LABEL_KEY,
    "k",
    "write keys as name or prefix/name, with letters, digits, '-', '_' and '.', such as team or example.com/team",
)
VALUES = _all_match(
    LABEL_VALUE, "self[k]", "write values with letters, digits, '-', '_' and '.', at most 63 characters, in quotes"
)
_OWN_KEYS = Rule(
    cel="!self.exists(k, k.startsWith('rfuav.io/'))",
    message="keys under rfuav.io/ are set by the operator: use another prefix",
    check=lambda value: not any(key.startswith(f"{contract.GROUP}/") for key in value),
)

LabelMap = Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32), KEYS, VALUES]
PATH = "/[^\\x00-\\x1f:]+"
_OWN_PATHS = tuple(contract.FOLDERS.values())
_OWN_FOLDERS = (contract.MOUNT_ROOT, contract.SECRETS)


class PodMetadata(Spec):
    """Labels and annotations added to the pods."""

    labels: Annotated[LabelMap, _OWN_KEYS] = Field(
        default_factory=dict,
        description="Labels added to the pods; keys under rfuav.io/ are the operator's. Default: none.",
    )
    annotations: Annotated[dict[str, Text], Field(max_length=32), KEYS, _OWN_KEYS] = Field(
        default_factory=dict,
        description="Annotations added to the pods; keys under rfuav.io/ are the operator's. Default: none.",
    )


class Toleration(Spec):
    """A taint that the pods tolerate."""

    rules = (
        Rule(
            cel="!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
            message="a toleration with operator Exists has no value: remove value, or write operator: Equal",
            field=".value",
            check=lambda t: t.operator != "Exists" or not t.value,
        ),
        Rule(
            cel="(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
            message="name the taint's key, or write operator: Exists to tolerate all taints",
            field=".key",
            check=lambda t: bool(t.key) or t.operator == "Exists",
        ),
        Rule(
            cel="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            message="tolerationSeconds needs effect: NoExecute: write that effect, or remove it",
            field=".tolerationSeconds",
            check=lambda t: t.toleration_seconds is None or t.effect == "NoExecute",
        ),
    )

    key: ShortText = Field(
        "", description="Key of the taint. Default: empty, which with operator Exists matches every taint."
    )
    operator: Literal["Equal", "Exists"] = Field("Equal", description="How the value is compared. Default: Equal.")
    value: Annotated[str, Field(max_length=63)] = Field(
        "", description="Value of the taint, for Equal. Default: empty."
    )
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        "", description="Effect of the taint. Default: empty, every effect."
    )
    toleration_seconds: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        None, description="How long a NoExecute taint is tolerated, in seconds. Default: for ever."
    )


class KeySelector(Spec):
    """One key of a Secret or ConfigMap of the job's namespace."""

    name: ObjectName = Field(description="Name of the Secret or ConfigMap.")
    key: ShortText = Field(description="Key in it.")
    optional: bool = Field(False, description="Whether the pod may start when it is not there. Default: false.")


class EnvSource(Spec):
    """Where the value of an environment variable comes from."""

    rules = (
        Rule(
            cel="has(self.secretKeyRef) != has(self.configMapKeyRef)",
            message="write exactly one of secretKeyRef and configMapKeyRef",
            check=lambda s: (s.secret_key_ref is None) != (s.config_map_key_ref is None),
        ),
    )

    secret_key_ref: KeySelector | None = Field(None, description="A key of a Secret.")
    config_map_key_ref: KeySelector | None = Field(None, description="A key of a ConfigMap.")


class EnvVar(Spec):
    """An environment variable of the training or inference container."""

    rules = (
        Rule(
            cel="has(self.value) != has(self.valueFrom)",
            message='write exactly one of value and valueFrom (an empty value is written as "")',
            check=lambda e: (e.value is None) != (e.value_from is None),
        ),
    )

    name: Annotated[
        str,
        Field(max_length=253),
        matches("[A-Za-z_][A-Za-z0-9_]*", "write letters, digits and '_', not starting with a digit"),
        Rule(
            cel=" && ".join(f"!self.startsWith('{prefix}')" for prefix in contract.RESERVED_PREFIXES),
            message="RFUAV_ and KUBEFLOW_TRAINER_ variables are set by the operator, NVIDIA_VISIBLE_DEVICES by the "
            "device plugin: use another name",
            check=lambda v: not v.startswith(contract.RESERVED_PREFIXES),
        ),
    ] = Field(
        description="Name of the variable. Names that start with RFUAV_ or KUBEFLOW_TRAINER_ are the operator's, "
        "NVIDIA_VISIBLE_DEVICES is the device plugin's."
    )
    value: Text | None = Field(None, description="Its value, a string. Default: none.")
    value_from: EnvSource | None = Field(None, description="A Secret's or ConfigMap's key that holds the value.")


class ObjectReference(Spec):
    """An object of the job's namespace, by name."""

    name: ObjectName = Field(description="Name of the object.")


class OptionalReference(ObjectReference):
    """An object of the job's namespace that may be missing."""

    optional: bool = Field(False, description="Whether the pod may start when it is not there. Default: false.")


class EnvFrom(Spec):
    """A Secret or ConfigMap whose keys all become environment variables."""

    rules = (
        Rule(
            cel="has(self.secretRef) != has(self.configMapRef)",
            message="write exactly one of secretRef and configMapRef",
            check=lambda s: (s.secret_ref is None) != (s.config_map_ref is None),
        ),
    )

    prefix: Annotated[
        str,
        Field(max_length=63),
        matches("[A-Za-z_][A-Za-z0-9_]*", "write letters, digits and '_', not starting with a digit", optional=True),
    ] = Field("", description="Text put in front of every key. Default: empty.")
    secret_ref: OptionalReference | None = Field(None, description="The Secret.")
    config_map_ref: OptionalReference | None = Field(None, description="The ConfigMap.")


class PodSecurity(Spec):
    """User and group of the pods; everything else follows the restricted Pod Security profile."""

    run_as_user: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(
        None,
        description="Numeric user of the container, not 0 (root). Default: 65532, or the cluster's choice where the "
        "operator is set so (clusterAssignsUsers).",
    )
    fs_group: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(
        None,
        description="Numeric group that volumes are made writable for, not 0. Default: as of runAsUser.",
    )


class KeyToPath(Spec):
    """One key of a Secret or ConfigMap and the file it becomes."""

    key: ShortText = Field(description="Key in the Secret or ConfigMap.")
    path: ShortText = Field(description="Relative path of the file in the volume.")


class ClaimVolume(Spec):
    """A PersistentVolumeClaim of the job's namespace."""

    claim_name: ObjectName = Field(description="Name of the PersistentVolumeClaim.")
    read_only: bool = Field(False, description="Whether it is mounted read-only. Default: false.")


class ConfigMapVolume(Spec):
    """A ConfigMap as files."""

    name: ObjectName = Field(description="Name of the ConfigMap.")
    items: Annotated[list[KeyToPath], Field(max_length=64)] = Field(
        default_factory=list, description="Which keys become which files. Default: every key, by its own name."
    )
    optional: bool = Field(False, description="Whether the pod may start when it is not there. Default: false.")


class SecretVolume(Spec):
    """A Secret as files."""

    secret_name: ObjectName = Field(description="Name of the Secret.")
    items: Annotated[list[KeyToPath], Field(max_length=64)] = Field(
        default_factory=list, description="Which keys become which files. Default: every key, by its own name."
    )
    optional: bool = Field(False, description="Whether the pod may start when it is not there. Default: false.")


class EmptyDirVolume(Spec):
    """A scratch folder that lives as long as the pod."""

    medium: Literal["", "Memory"] = Field("", description="Memory: in RAM, counted as the pod's memory. Default: disk.")
    size_limit: MemoryText | None = Field(None, description="Most it may hold, bytes as a quantity. Default: no limit.")


class CsiVolume(Spec):
    """A volume that a CSI driver makes only for the pod (ephemeral inline volume)."""

    driver: ObjectName = Field(description="Name of the CSI driver.")
    read_only: bool = Field(False, description="Whether it is mounted read-only. Default: false.")
    fs_type: Annotated[str, Field(max_length=63)] = Field(
        "", description="File system type. Default: the driver's choice."
    )
    volume_attributes: Annotated[dict[str, Text], Field(max_length=32)] = Field(
        default_factory=dict, description="Settings that the driver reads. Default: none."
    )
    node_publish_secret_ref: ObjectReference | None = Field(
        None, description="Secret that is handed to the driver. Default: none."
    )


_SOURCES = ("persistentVolumeClaim", "configMap", "secret", "emptyDir", "csi")


class Volume(Spec):
    """A volume of the pods; host paths are not offered."""

    rules = (
        Rule(
            cel=" + ".join(f"(has(self.{source}) ? 1 : 0)" for source in _SOURCES) + " == 1",
            message=f"write exactly one of {', '.join(_SOURCES)} (host paths are not allowed)",
            check=lambda v: (
                sum(s is not None for s in (v.persistent_volume_claim, v.config_map, v.secret, v.empty_dir, v.csi)) == 1
            ),
        ),
    )

    name: Annotated[
        Label,
        Rule(
            cel="!self.startsWith('rfuav-')",
            message="volume names that start with rfuav- are the operator's: use another name",
            check=lambda name: not name.startswith("rfuav-"),
        ),
    ] = Field(description="Name that volumeMounts refer to; not starting with rfuav-.")
    persistent_volume_claim: ClaimVolume | None = Field(None, description="A PersistentVolumeClaim.")
    config_map: ConfigMapVolume | None = Field(None, description="A ConfigMap as files.")
    secret: SecretVolume | None = Field(None, description="A Secret as files.")
    empty_dir: EmptyDirVolume | None = Field(None, description="A scratch folder.")
    csi: CsiVolume | None = Field(None, description="An ephemeral volume of a CSI driver.")


class VolumeMount(Spec):
    """Where a volume appears in the container."""

    name: Label = Field(description="Name of the volume in `volumes`.")
    mount_path: Annotated[
        str,
        Field(max_length=512),
        matches(PATH, "write an absolute path without ':', such as /data"),
        Rule(
            cel=f"!(self in [{', '.join(repr(path) for path in _OWN_PATHS)}]) && "
            + " && ".join(f"!self.startsWith('{folder}')" for folder in _OWN_FOLDERS),
            message=f"{', '.join(_OWN_PATHS + _OWN_FOLDERS)} are the operator's: mount it elsewhere, such as /data",
            check=lambda v: v not in _OWN_PATHS and not v.startswith(_OWN_FOLDERS),
        ),
    ] = Field(description="Absolute path in the container; not one of the operator's own.")
    sub_path: Annotated[
        str,
        Field(max_length=512),
        Rule(
            cel="!self.startsWith('/') && !self.matches(r'(^|/)[.][.](/|$)')",
            message="write a relative path inside the volume, without '..'",
            check=lambda v: not v.startswith("/") and ".." not in v.split("/"),
        ),
    ] = Field("", description="Folder of the volume that is mounted, relative. Default: its root.")
    read_only: bool = Field(False, description="Whether it is mounted read-only. Default: false.")


class PodTemplate(Spec):
    """Additions to the pods of the job. Default: nothing."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)
    rules = (
        Rule(
            cel="!has(self.volumeMounts) || "
            "self.volumeMounts.all(m, has(self.volumes) && self.volumes.exists(v, v.name == m.name))",
            message="every volumeMount names an entry of podTemplate.volumes: add the volume, or correct the name",
            field=".volumeMounts",
            check=lambda t: {m.name for m in t.volume_mounts} <= {v.name for v in t.volumes},
        ),
    )

    metadata: PodMetadata = Field(default_factory=PodMetadata, description="Labels and annotations added to the pods.")
    node_selector: LabelMap = Field(
        default_factory=dict, description="Labels that a node must carry, beside those of the pool. Default: none."
    )
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = Field(
        default_factory=list, description="Taints that the pods tolerate. Default: none."
    )
    env: Annotated[list[EnvVar], Field(max_length=64), listed_by("name")] = Field(
        default_factory=list, description="Environment variables of the container. Default: none."
    )
    env_from: Annotated[list[EnvFrom], Field(max_length=16)] = Field(
        default_factory=list, description="Secrets and ConfigMaps whose keys all become variables. Default: none."
    )
    image_pull_secrets: Annotated[list[ObjectReference], Field(max_length=16), listed_by("name")] = Field(
        default_factory=list, description="Secrets with the credentials of private image registries. Default: none."
    )
    service_account_name: OptionalObjectName = Field(
        "", description="ServiceAccount of the pods; its token is not mounted. Default: the namespace's `default`."
    )
    security_context: PodSecurity = Field(default_factory=PodSecurity, description="User and group of the pods.")
    volumes: Annotated[list[Volume], Field(max_length=16), listed_by("name")] = Field(
        default_factory=list, description="Volumes beside those of the job's own URIs. Default: none."
    )
    volume_mounts: Annotated[list[VolumeMount], Field(max_length=32), listed_by("mountPath")] = Field(
        default_factory=list, description="Where the volumes appear in the container. Default: none."
    )
