"""How a process of this project is configured and logs: the same way for the operator and the gateway.

In: a model of the settings, a YAML file, the environment, `--set` flags. Out: validated settings, their description for
`--help`, JSON logs. It must not know any setting.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import structlog
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

_SHOWN = 100  # characters of a value that is none
_BEYOND = (ValueError, RecursionError)  # what YAML reads and Python does not hold: dates, numbers, depths; bytes


class SettingsError(ValueError):
    """The settings cannot be used; the message says which and what to write instead."""


class Section(BaseModel):
    """A section of settings, camelCase in YAML; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


S = TypeVar("S", bound=Section)


def tree(prefix: str, path: Path | None, *, env: Mapping[str, str], overrides: Sequence[str]) -> dict[str, Any]:
    """The settings as written: the file, then variables that begin with `prefix`, then `NAME=VALUE` overrides.

    Raises:
        SettingsError: names the setting and the problem.
    """
    tree = _read(path) if path else {}
    for name, value in sorted(env.items()):
        if name.startswith(prefix):
            _put(tree, [_camel(part) for part in name.removeprefix(prefix).split("__")], value, name)
    for override in overrides:
        name, separator, value = override.partition("=")
        if not separator:
            raise SettingsError(f"--set {override}: write NAME=VALUE, as in --set logLevel=debug")
        _put(tree, name.split("."), value, f"--set {name}")
    return tree


def validated(model: type[S], tree: Mapping[str, Any]) -> S:
    """The settings as values.

    Raises:
        SettingsError: names each setting that is wrong.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()]
        raise SettingsError("; ".join(lines)) from error


def add_run(commands: Any, program: str, *, prefix: str, defaults: Section, example: str) -> None:
    """Add the command `run` of a program, with `--settings FILE` and `--set NAME=VALUE`; its help lists all settings.

    Args:
        commands: what `add_subparsers` gave.
        program: what is run, for people.
        prefix: of the variables in the environment.
        defaults: the settings of somebody who writes none.
        example: of a setting.
    """
    runs: argparse.ArgumentParser = commands.add_parser(
        "run",
        help=f"run the {program}",
        description=f"Runs the {program}. Settings come from the file, then from {prefix}SECTION__NAME in the "
        "environment, then from --set.",
        epilog="\n".join(["settings and their defaults:", *described(defaults)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    runs.add_argument("--settings", "--config", type=Path, metavar="FILE", help="YAML file of settings")
    runs.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=f"one setting, as in {example}")


def described(section: BaseModel, path: str = "") -> Iterator[str]:
    """A line for each setting: its name and default as in YAML, and its meaning."""
    for name, field in type(section).model_fields.items():
        setting, value = f"{path}{field.alias}", getattr(section, name)
        if isinstance(value, BaseModel):
            yield from described(value, f"{setting}.")
        else:
            yield f"  {setting}: {json.dumps(value)}  {field.description}"


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, *_BEYOND) as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error}") from error
    if not isinstance(tree, dict):
        raise SettingsError(f"the settings file {path} must hold a mapping, as in `logLevel: info`")
    return tree


def _camel(name: str) -> str:
    return to_camel(name.lower())


def _put(tree: dict[str, Any], path: list[str], text: str, source: str) -> None:
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, *_BEYOND) as error:
        raise SettingsError(f"{source}: {text[:_SHOWN]!r} is not a YAML value") from error
    for part in path[:-1]:
        below = tree.setdefault(part, {})
        if not isinstance(below, dict):
            raise SettingsError(f"{source}: {part} is not a section")
        tree = below
    tree[path[-1]] = "" if value is None else value


def log_json(level: str) -> None:
    """Log as one JSON object a line, from this level on."""
    number = getattr(logging, level.upper())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
    )
    # Libraries log through the standard library; their lines become JSON too.
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            ],
        )
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
