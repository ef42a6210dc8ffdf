"""What every part of the API builds on: the base of the models, names, and URIs of data."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

from rfuav_crds.rules import Rule, broken, matches


class Model(BaseModel):
    """An object of the API: camelCase on the wire, snake_case here, frozen, with rules of its own."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _keep_rules(self) -> Self:
        failed = [rule for rule in self.rules if rule.broken_by(self)]
        if failed:
            raise broken(failed)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Add the CEL side of the rules to the schema of the object."""
        reference = handler(schema)
        if cls.rules:
            handler.resolve_ref_schema(reference)["x-kubernetes-validations"] = [r.as_schema() for r in cls.rules]
        return reference


class Spec(Model):
    """What users write: unknown fields and values of another type are errors, as the API server has it."""

    model_config = ConfigDict(extra="forbid", strict=True)


DNS_LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
DNS_SUBDOMAIN = "[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
JOB_NAME = "[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?"
_LABEL_HINT = (
    "write lower-case letters, digits and '-', starting and ending with a letter or digit, at most 63 characters"
)
_SUBDOMAIN_HINT = "write lower-case letters, digits, '-' and '.', starting and ending with a letter or digit"

Label = Annotated[str, Field(max_length=63), matches(DNS_LABEL, _LABEL_HINT)]
ObjectName = Annotated[str, Field(max_length=253), matches(DNS_SUBDOMAIN, _SUBDOMAIN_HINT)]
OptionalObjectName = Annotated[
    str, Field(max_length=253), matches(DNS_SUBDOMAIN, f"{_SUBDOMAIN_HINT}, or leave it empty", optional=True)
]
JobName = Annotated[
    str,
    Field(max_length=40),
    matches(JOB_NAME, "write the name of a TrainingJob: lower-case letters, digits and '-', at most 40 characters"),
]

JOB_NAME_RULE = Rule(
    cel=f"self.metadata.name.matches(r'^(?:{JOB_NAME})$')",
    message="a job's name has at most 40 characters: lower-case letters, digits and '-', starting and ending "
    "with a letter "
    "or digit (pod names are made from it)",
    field=".metadata.name",
)

Format = Literal["image", "iq", "auto"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Architecture = Literal[
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "vit_b_16",
    "vit_b_32",
    "vit_l_16",
    "vit_l_32",
    "vit_h_14",
    "swin_v2_t",
    "swin_v2_s",
    "swin_v2_b",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "custom",
]
CustomFunction = Annotated[
    str,
    Field(max_length=200),
    matches(
        r"[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*",
        "write module:function, as in my_package.networks:build",
    ),
]

# --- where data is

_STEP = r"[^/\x00-\x1f\x7f\\]+"
_PVC = f"pvc://{DNS_LABEL}(/{_STEP})*/?"
_S3 = f"s3://[a-z0-9][a-z0-9.-]{{1,61}}[a-z0-9](/{_STEP})*/?"
_HF = "hf://[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)+"
_FILE = f"file://(/{_STEP})+/?"
READABLE = "pvc://CLAIM/path, s3://bucket/prefix, hf://datasets/owner/name or file:///path"
"""How the URIs of data look, for messages and descriptions."""
WRITABLE = "pvc://CLAIM/path, s3://bucket/prefix or file:///path"

_NO_PARENT = Rule(
    cel="!self.matches(r'(^|/)[.][.]?(/|$)')",
    message="write the path without '.' and '..' steps",
    check=lambda value: not any(step in {".", ".."} for step in value.split("/")),
)
_URI = Annotated[str, Field(max_length=512)]

DataUri = Annotated[
    _URI, matches(f"{_PVC}|{_S3}|{_HF}|{_FILE}", f"write {READABLE} (the claim's name in lower case)"), _NO_PARENT
]
OutputUri = Annotated[
    _URI,
    matches(
        f"{_PVC}|{_S3}|{_FILE}",
        f"write {WRITABLE} (hf:// cannot be written to)",
    ),
    _NO_PARENT,
]
WeightsUri = Annotated[
    _URI,
    matches(
        f"{_PVC}|{_S3}|{_HF}|{_FILE}",
        "write the URI of a weights file: pvc://CLAIM/path/best.safetensors, s3://bucket/key, "
        "hf://owner/name/file or file:///path",
    ),
    _NO_PARENT,
]
InitialWeights = Annotated[
    _URI,
    matches(
        f"none|pretrained|{_PVC}|{_S3}|{_HF}|{_FILE}",
        "write none, pretrained, or the URI of a weights file such as pvc://CLAIM/path/best.safetensors",
    ),
    _NO_PARENT,
]
