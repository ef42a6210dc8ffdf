"""A status as it is stored. With many shards it is stored by value; otherwise a thousand pods would fill 400 kB.

In: a status. Out: plain values, and back. Pods of one node share an entry of `assignments`, and the values that
`status.shards` has by shard become `packed`, the shards by value. Only values that the next report repeats are
lost: rates, GPU use, times of reports, and the GPU of a shard.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from rfuav_operator.core import ranges
from rfuav_operator.core.model import JobStatus

MANY = 64  # shards of a job, past which its status is packed
MOST = 1000  # shards, as the CRD has it
_TURNED = ("attempts", "retries", "countedFailures", "notBefore")  # maps by shard whose values many shards share
_OF_ONE = ("node", "startedAt")  # fields of an assignment that `packed` has too: few shards share both
_APART = ("pod", "shard", "gpuUUID", *_OF_ONE)  # what its group does not share


def pack(status: JobStatus) -> dict[str, Any]:
    """The status as plain values, packed where the job has many shards."""
    plain: dict[str, Any] = msgspec.to_builtins(status)
    if status.shards is None or status.shards.total <= MANY:
        return plain
    shards = dict(plain["shards"])
    packed = {name: _turned(shards.pop(name).items()) for name in _TURNED if shards.get(name)}
    if reports := {shard: _words(report) for shard, report in shards.pop("progress", {}).items()}:
        packed["progress"] = reports
    if plain.get("assignments"):
        plain["assignments"], held = _grouped(plain["assignments"])
        packed |= {name: turned for name in _OF_ONE if (turned := _turned((s, a[name]) for s, a in held if name in a))}
    plain["shards"] = shards | ({"packed": packed} if packed else {})
    return plain


def unpack(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """The status with a value for each shard again; `stored` itself where nothing is packed.

    Raises:
        ValueError: it was packed by something else.
    """
    shards = stored.get("shards")
    if not isinstance(shards, Mapping) or "packed" not in shards:
        return stored
    try:
        return _unpacked(stored, shards, shards["packed"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"status.shards.packed cannot be read: {error!r}") from error


def _unpacked(stored: Mapping[str, Any], shards: Mapping[str, Any], packed: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in shards.items() if name != "packed"}
    for name in _TURNED:
        number: Callable[[str], Any] = str if name == "notBefore" else int
        if by_shard := {str(s): number(value) for value, text in packed.get(name, {}).items() for s in _parsed(text)}:
            plain[name] = by_shard
    if reports := {shard: _report(words) for shard, words in packed.get("progress", {}).items()}:
        plain["progress"] = reports
    own = {name: {s: value for value, text in packed.get(name, {}).items() for s in _parsed(text)} for name in _OF_ONE}
    found: list[dict[str, Any]] = []
    for entry in stored.get("assignments") or ():
        if not entry.get("shards"):
            found.append(dict(entry))
            continue
        shared = {name: value for name, value in entry.items() if name not in ("pod", "shards")}
        for shard in sorted(_parsed(entry["shards"])):
            mine = {name: values[shard] for name, values in own.items() if shard in values}
            found.append({**shared, **mine, "pod": f"{entry['pod']}{shard}", "shard": shard})
        if len(found) > MOST:
            raise ValueError(f"status.assignments names more than {MOST} pods")
    return {**stored, "shards": plain} | ({"assignments": found} if found else {})


def _grouped(
    assignments: Iterable[Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], list[tuple[str, Mapping[str, Any]]]]:
    """One entry for pods that differ in `_APART` alone, and the assignments in them by shard."""
    groups: dict[tuple[Any, ...], set[int]] = defaultdict(set)
    grouped: dict[str, Mapping[str, Any]] = {}
    left: list[dict[str, Any]] = []
    for held in assignments:
        shard = held.get("shard")
        stem = held["pod"].removesuffix(str(shard))
        if shard is None or shard >= MOST or stem == held["pod"] or str(shard) in grouped:
            left.append(dict(held))
            continue
        shared = tuple((name, value) for name, value in held.items() if name not in _APART)
        groups[stem, *shared].add(shard)
        grouped[str(shard)] = held
    entries = [{"pod": key[0], **dict(key[1:]), "shards": ranges.show(found)} for key, found in groups.items()]
    return [*entries, *left], list(grouped.items())


def _turned(by_shard: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """The shards of each value, as ranges."""
    found: dict[str, set[int]] = defaultdict(set)
    for shard, value in by_shard:
        found[str(value)].add(int(shard))
    return {value: ranges.show(shards) for value, shards in sorted(found.items())}


def _parsed(text: str) -> set[int]:
    found = ranges.parse(text)
    if found and max(found) >= MOST:
        raise ValueError(f"shard {max(found)} is out of range: a job has at most {MOST}")
    return found


def _words(report: Mapping[str, Any]) -> str:
    """A report as `[percent ]processed/failed/total sequence`.

    `-` stands for a missing number; the percent is left out if it follows from the counts.
    """
    values = {name: report.get(name) for name in ("percent", "processed", "failed", "total", "sequence")}
    percent, *counts, sequence = ("-" if value is None else str(value) for value in values.values())
    words = f"{'/'.join(counts)} {sequence}"
    return words if values["percent"] == _percent(values) else f"{percent} {words}"


def _report(words: str) -> dict[str, int]:
    *percent, counts, sequence = words.split(" ")
    done, failed, total = counts.split("/")
    texts = {"processed": done, "failed": failed, "total": total, "sequence": sequence}
    values = {name: int(text) for name, text in texts.items() if text != "-"}
    found = _percent(values) if not percent else None if percent == ["-"] else int(percent[0])
    return values if found is None else values | {"percent": found}


def _percent(values: Mapping[str, int | None]) -> int | None:
    done, total = values.get("processed"), values.get("total")
    return done * 100 // total if done is not None and total else None
