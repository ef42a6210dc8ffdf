"""The YAML file of a training of the reference service: what its weights do not say.

In: a file with, among others, `model`, `num_classes`, `class_names` and `image_size`. Out: these; everything else in it
is about the machine of then, and ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.networks import architectures
from rfuav_trainer.storage import inputs

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 256 * 1024
"""Bytes: twice a thousand of the longest names."""
DEEPEST = 10
LONGEST_NAME = 128
SIZES = range(16, 2049)
_NOTHING = ("", "~", "null")


@dataclass(frozen=True)
class Config:
    """What a file says; what it does not say is None or empty.

    Attributes:
        where: the field and the file, for messages.
        architecture: one of `architectures.ARCHITECTURES`.
        classes: names in the order of the outputs.
        image_size: side of the pictures in pixels.
    """

    where: str
    architecture: str | None
    classes: tuple[str, ...]
    image_size: int | None


def read(path: Path, field: str) -> Config:
    """What the file says; `field` is the field of the job that names it.

    Raises:
        InputError: the file is missing, too large, or not YAML.
        InvalidConfigurationError: a value in it is wrong.
    """
    where = f"{field} {path}"
    content = _content(path, where)
    architecture = _text(content, "model", where)
    if architecture is not None and architecture not in architectures.ARCHITECTURES:
        raise InvalidConfigurationError(
            f"{where}: model {architecture!r} is not known: write one of {', '.join(architectures.ARCHITECTURES)}"
        )
    classes = _classes(content, where)
    count = _number(content, "num_classes", where, range(1, LARGEST))
    if classes and count not in (None, len(classes)):
        raise InvalidConfigurationError(
            f"{where}: num_classes is {count}, but class_names has {len(classes)}: write as many as the weights have"
        )
    return Config(where, architecture, classes, _number(content, "image_size", where, SIZES))


def _content(path: Path, where: str) -> dict[Any, Any]:
    try:
        with inputs.opened(path) as here, here.open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except OSError as error:
        raise InputError(
            f"{where}: cannot be read ({error.strerror}): write the URI of the YAML file that the weights were trained "
            "with"
        ) from error
    if len(data) > LARGEST:
        raise InputError(f"{where}: is larger than {LARGEST // 1024} KiB, which no such file is: name another file")
    try:
        text = data.decode()
        _check_depth(text, where)
        content = yaml.load(text, yaml.BaseLoader)  # noqa: S506  (the safest: texts, lists and mappings of them)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{where}: is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise InputError(f"{where}: has no fields: write model, class_names and image_size")
    return content


def _check_depth(text: str, where: str) -> None:
    """Count the depth without recursion: Python's own is limited, and the loader's steps are nested."""
    depth = 0
    for event in yaml.parse(text, yaml.BaseLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise InputError(f"{where}: is nested deeper than {DEEPEST} levels, which no such file is")


def _text(content: dict[Any, Any], name: str, where: str) -> str | None:
    value = content.get(name, "")
    if not isinstance(value, str):
        raise InvalidConfigurationError(f"{where}: {name} is not one value: write {name}: VALUE")
    value = value.strip()
    return None if value in _NOTHING else value


def _number(content: dict[Any, Any], name: str, where: str, allowed: range) -> int | None:
    text = _text(content, name, where)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) in allowed):  # noqa: PLR2004  (digits)
        raise InvalidConfigurationError(
            f"{where}: {name} {text[:LONGEST_NAME]!r} is not a whole number from {allowed[0]} to {allowed[-1]}"
        )
    return int(text)


def _classes(content: dict[Any, Any], where: str) -> tuple[str, ...]:
    names = content.get("class_names", [])
    if isinstance(names, str) and names.strip() in _NOTHING:
        names = []
    if not isinstance(names, list) or not all(isinstance(one, str) and 0 < len(one) <= LONGEST_NAME for one in names):
        raise InvalidConfigurationError(
            f"{where}: class_names is not a list of names of 1 to {LONGEST_NAME} characters: write class_names: "
            "[first, second, ...] in the order of the outputs"
        )
    twice = sorted({one for one in names if names.count(one) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise InvalidConfigurationError(f"{where}: class_names has {twice[0]!r} twice: write each name once")
    return tuple(names)
