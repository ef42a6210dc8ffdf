"""Which metrics and labels a query asks for, and which of them there are not."""

import re
from collections.abc import Collection, Iterable, Iterator

from monitoring.metrics import Metric

TARGET = {"job", "instance", "namespace", "pod", "container", "service", "endpoint", "le"}
"""Labels of whoever is scraped, and of histograms."""

_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'')
_SELECTOR = re.compile(r"\b(?P<name>[a-zA-Z_:][\w:]*)(?:\s*\{(?P<matchers>[^}]*)\})?(?P<call>\s*\()?")
_GROUPED = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_WORDS = {
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "and",
    "or",
    "unless",
    "offset",
    "inf",
    "nan",
}


def unknown(query: str, metrics: Iterable[Metric], others: Collection[str] = ()) -> list[str]:
    """What a query asks for and there is not, in words.

    Args:
        query: PromQL; variables of Grafana may be in its texts and ranges.
        metrics: those that there are.
        others: names of metrics of other programs, whose labels are not checked.
    """
    labels_of = {series: {*metric.labels} for metric in metrics for series in metric.series}
    bare = _TEXT.sub('""', query)
    grouped = [label for group in _GROUPED.findall(bare) for label in _names(group)]
    bare = re.sub(r"\[[^\]]*\]", "", _GROUPED.sub(" ", bare))
    found: list[str] = []
    asked: set[str] = set()
    foreign = False
    for match in _SELECTOR.finditer(bare):
        name, matchers = match["name"], match["matchers"]
        if match["call"] or name.lower() in _WORDS or re.fullmatch(r"\d*[smhdwy]?", name):
            continue
        if name in labels_of:
            asked |= labels_of[name]
            labels = [matcher.split("=")[0].rstrip("!~ ").strip() for matcher in (matchers or "").split(",") if matcher]
            found += [f"label {label} of {name}" for label in labels if label not in labels_of[name] | TARGET]
        elif name in others:
            foreign = True
        else:
            found.append(f"metric {name}")
    if not foreign and not any(word.startswith("metric ") for word in found):
        found += [f"label {label}" for label in grouped if label not in asked | TARGET]
    return found


def _names(group: str) -> Iterator[str]:
    return (label.strip() for label in group.split(",") if label.strip())
