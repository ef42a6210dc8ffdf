"""Options that commands share: those of kubectl, and the form of the output.

`with_cluster` adds kubectl's own to a command, which gets a `Session` for them.
"""

import functools
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any, get_type_hints

import typer

from rfuav_cli.session import Session


class Form(StrEnum):
    """Forms of a table."""

    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


Everywhere = Annotated[bool, typer.Option("-A", "--all-namespaces", help="The jobs of all namespaces.")]
Watch = Annotated[
    bool, typer.Option("-w", "--watch", help="Show it again whenever the interval is over, until Ctrl-C.")
]
Interval = Annotated[float, typer.Option(min=0.5, max=3600, help="Seconds between two looks with --watch.")]
Output = Annotated[Form | None, typer.Option("-o", "--output", help="wide, json, yaml or name.", show_default=False)]
NoHeaders = Annotated[bool, typer.Option("--no-headers", help="Without the line of titles.")]
JobName = Annotated[
    str,
    typer.Argument(metavar="JOB", help="NAME, tj/NAME (TrainingJob) or ij/NAME (InferenceJob).", show_default=False),
]
JobNames = Annotated[list[str], typer.Argument(metavar="JOB...", help="NAME, tj/NAME or ij/NAME.", show_default=False)]
Timeout = Annotated[str, typer.Option(help="How long at most, as in 90s, 30m or 12h; 0: without limit.")]

_NAMESPACE = Annotated[
    str, typer.Option("-n", "--namespace", help="Namespace. Default: that of kubectl's context.", show_default=False)
]
_KUBECTL: dict[str, Any] = {
    "context": Annotated[str, typer.Option("--context", help="Context of the kubeconfig.", show_default=False)],
    "kubeconfig": Annotated[str, typer.Option("--kubeconfig", help="Path of the kubeconfig.", show_default=False)],
    "cluster": Annotated[str, typer.Option("--cluster", help="Cluster of the kubeconfig.", hidden=True)],
    "user": Annotated[str, typer.Option("--user", help="User of the kubeconfig.", hidden=True)],
    "as_": Annotated[str, typer.Option("--as", help="User to impersonate.", hidden=True)],
    "as_group": Annotated[str, typer.Option("--as-group", help="Group to impersonate.", hidden=True)],
}


def kubectl_flags(values: Mapping[str, str]) -> list[str]:
    """The options above as kubectl takes them."""
    return [f"--{name.strip('_').replace('_', '-')}={value}" for name, value in values.items() if value]


def with_cluster(command: Callable[..., None]) -> Callable[..., None]:
    """The command with kubectl's options, and with a `Session` as its first argument."""
    hints = get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)
    own = [p.replace(annotation=hints[p.name]) for p in list(signature.parameters.values())[1:]]
    kind = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter(name, kind, default="", annotation=of)
        for name, of in {"namespace": _NAMESPACE, **_KUBECTL}.items()
    ]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        namespace = values.pop("namespace")
        flags = kubectl_flags({name: values.pop(name) for name in _KUBECTL})
        with Session(flags, namespace) as session:
            command(session, **values)

    run.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (*own, *added)}
    del run.__wrapped__
    return run


def written(value: Any, form: Form) -> None:
    """Print a value as JSON or YAML."""
    if form is Form.JSON:
        json.dump(value, sys.stdout, indent=4, ensure_ascii=False)
        sys.stdout.write("\n")
        return
    import yaml  # noqa: PLC0415  (a tenth of a second)

    yaml.safe_dump(value, sys.stdout, sort_keys=False, allow_unicode=True, default_flow_style=False)
