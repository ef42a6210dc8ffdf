"""The CustomResourceDefinitions: names, printed columns and the schema of each kind."""

from dataclasses import dataclass
from typing import Any, Literal

from rfuav_crds.contract import GROUP, PLURALS, VERSION
from rfuav_crds.jobs import KINDS
from rfuav_crds.rules import ATOMIC
from rfuav_crds.schema import stored_as_applied, structural


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; wide ones are shown with `-o wide`."""

    name: str
    path: str
    type: Literal["string", "integer", "number", "date"] = "string"
    wide: bool = False
    description: str = ""

    def as_schema(self) -> dict[str, Any]:
        """The entry of `additionalPrinterColumns`."""
        column: dict[str, Any] = {"name": self.name, "type": self.type, "jsonPath": self.path}
        if self.description:
            column["description"] = self.description
        return column | ({"priority": 1} if self.wide else {})


@dataclass(frozen=True)
class Crd:
    """What a CRD says beside its schema."""

    kind: str
    short: str
    scope: Literal["Namespaced", "Cluster"]
    columns: tuple[Column, ...]

    @property
    def plural(self) -> str:
        """Name of the resource in the API's paths."""
        return PLURALS[self.kind]

    @property
    def name(self) -> str:
        """Name of the CRD object."""
        return f"{self.plural}.{GROUP}"


_AGE = Column("Age", ".metadata.creationTimestamp", "date")
_WHY = (Column("Node", ".status.assignments[0].node"), Column("Reason", ".status.reason"), _AGE)
_WIDE = (
    Column("Queue", ".status.queue.position", "integer", wide=True),
    Column("Pool", ".spec.pool", wide=True),
    Column("Attempt", ".status.attempt", "integer", wide=True),
    Column("Message", ".status.message", wide=True),
)
_PHASE = (
    Column("Phase", ".status.phase"),
    Column("Progress", ".status.progress.percent", "integer", description="Percent."),
)

CRDS = (
    Crd(
        "TrainingJob",
        "tj",
        "Namespaced",
        (
            *_PHASE,
            Column("Epoch", ".status.progress.epoch", "integer"),
            Column("Loss", ".status.metrics.valLoss", "number", description="Over the validation data."),
            Column("Acc", ".status.metrics.valAccuracy", "number", description="Over the validation data, 0 to 1."),
            Column("GPUs", ".spec.resources.gpus", "integer"),
            *_WHY,
            *_WIDE,
        ),
    ),
    Crd(
        "InferenceJob",
        "ij",
        "Namespaced",
        (
            *_PHASE,
            Column("Done", ".status.progress.processed", "integer"),
            Column("Failed", ".status.progress.failed", "integer"),
            Column("Rate", ".status.progress.samplesPerSecond", "number", description="Samples a second."),
            *_WHY,
            *_WIDE,
        ),
    ),
    Crd(
        "GPUPool",
        "gpool",
        "Cluster",
        (
            Column("Nodes", ".status.nodes", "integer"),
            Column("GPUs", ".status.gpus", "integer", description="Physical, healthy."),
            Column("Slots", ".status.slots", "integer"),
            Column("Training", ".status.slotsInUse.training", "integer", description="Slots in use."),
            Column("Inference", ".status.slotsInUse.inference", "integer", description="Slots in use."),
            Column("Pending", ".status.pending.total", "integer"),
            Column("Stop", ".spec.stopPolicy"),
            Column("Reason", ".status.conditions[?(@.type=='Ready')].reason", description="Ready, or what is wrong."),
            _AGE,
            Column("Message", ".status.conditions[?(@.type=='Ready')].message", wide=True),
        ),
    ),
    Crd(
        "GPUQuota",
        "gquota",
        "Namespaced",
        (
            Column("Pool", ".spec.pools[0].name"),
            Column("Nominal", ".spec.pools[0].gpus.nominal", "integer"),
            Column("Used", ".status.pools[0].used", "integer"),
            Column("Borrowed", ".status.pools[0].borrowed", "integer"),
            Column("Stop", ".spec.stopPolicy"),
            _AGE,
        ),
    ),
)


def manifest(crd: Crd, *, stored: bool = True) -> dict[str, Any]:
    """The CustomResourceDefinition of one kind, ready to apply.

    Fields that are owned whole are stored as applied: stored defaults would differ from the manifest, and server-side
    apply after a client-side one would conflict. Readers fill the defaults in. `stored=False` includes these defaults,
    for the reference.
    """
    model = KINDS[crd.kind]
    spec_type = model.model_fields["spec"].annotation
    status_type = model.model_fields["status"].annotation
    spec = structural(spec_type)  # type: ignore[arg-type]
    schema: dict[str, Any] = {
        "description": (model.__doc__ or "").strip(),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Always {GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"Always {crd.kind}."},
            # All that a CRD may define about metadata; it gives the rules on the name a field to point at.
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}},
            "spec": stored_as_applied(spec) if stored else spec,
            # Only the operator writes it: recording the owner of each field would only cost time.
            "status": structural(status_type.__args__[0], defaults=False) | ATOMIC,  # type: ignore[union-attr]
        },
    }
    if model.root_rules:
        schema["x-kubernetes-validations"] = [rule.as_schema() for rule in model.root_rules]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": crd.name, "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {
            "group": GROUP,
            "scope": crd.scope,
            "names": {
                "kind": crd.kind,
                "listKind": f"{crd.kind}List",
                "plural": crd.plural,
                "singular": crd.kind.lower(),
                "shortNames": [crd.short],
                "categories": ["all", "rfuav"] if crd.kind.endswith("Job") else ["rfuav"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [column.as_schema() for column in crd.columns],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }
