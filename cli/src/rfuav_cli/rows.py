"""What the tables of `queue` and `top` say, from objects as the API server shows them: no I/O, no clock.

Objects are plain values, not decoded: a queue may have many thousands. What one of them lacks is left empty.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rfuav_cli.jobs import ENDED, SHORT, Body, shown
from rfuav_cli.tables import Column, Table
from rfuav_operator.core.guidance.spans import span

_NOWHERE = 1 << 30
QUEUE = (
    Column("Place", right=True),
    Column("Job"),
    Column("Namespace", spare=True),
    Column("Priority", right=True, spare=True),
    Column("GPUs", right=True),
    Column("Waits", right=True),
    Column("Starts"),
    Column("Class", wide=True),
    Column("Attempts", wide=True, right=True),
    Column("Model", wide=True),
    Column("Reason", spare=True),
    Column("Why", long=True),
)
_UNCOUNTED = {
    "slots": 0, "own": None, "most": None, "borrowed": None, "training": 0, "inference": 0, "waiting": None,
}  # fmt: skip
POOLS = (
    Column("Pool"),
    Column("Ready"),
    Column("GPUs", right=True),
    Column("Slots", right=True),
    Column("Free", right=True),
    Column("Train", right=True, spare=True),
    Column("Infer", right=True, spare=True),
    Column("Others", right=True, spare=True),
    Column("Running", right=True),
    Column("Waiting", right=True),
    Column("Message", wide=True, long=True),
)
TEAMS = (
    Column("Namespace"),
    Column("Pool"),
    Column("Slots", right=True),
    Column("Own", right=True),
    Column("Most", right=True),
    Column("Borrowed", right=True, spare=True),
    Column("Train", right=True, spare=True),
    Column("Infer", right=True, spare=True),
    Column("Waiting", right=True),
)
HOLDERS = (
    Column("Job"),
    Column("Namespace", spare=True),
    Column("Pool", spare=True),
    Column("Slots", right=True),
    Column("Phase"),
    Column("For", right=True),
    Column("Progress", right=True),
    Column("Left", right=True, spare=True),
    Column("Nodes", long=True),
)


def waiting(bodies: Iterable[Body], priorities: Mapping[str, int], now: datetime) -> dict[str, list[dict[str, Any]]]:
    """The jobs that wait, by pool, in the order of its queue; those without a place are last, by age.

    Args:
        bodies: jobs.
        priorities: the values of the PriorityClasses, as far as they may be read.
        now: the API server's time.
    """
    pools: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for body in bodies:
        spec, status = part(body, "spec"), part(body, "status")
        if status.get("phase") not in (None, "Queued") or body["metadata"].get("deletionTimestamp"):
            continue
        queue, since = part(status, "queue"), status.get("queuedAt") or body["metadata"].get("creationTimestamp")
        name = spec.get("priorityClassName") or f"rfuav-{'training' if body['kind'] == 'TrainingJob' else 'inference'}"
        pools[str(spec.get("pool") or "default")].append(
            {
                "position": queue.get("position"),
                "of": queue.get("of"),
                "job": shown(body),
                "namespace": body["metadata"]["namespace"],
                "priority": priorities.get(name),
                "priorityClass": spec.get("priorityClassName"),
                "gpus": slots_asked(body),
                "queuedAt": since,
                "waitingSeconds": seconds(since, now),
                "estimatedStart": queue.get("estimatedStart"),
                "startsInSeconds": seconds_until(queue.get("estimatedStart"), now),
                "attempts": status.get("attempt") or 0,
                "model": part(spec, "model").get("architecture") or part(spec, "model").get("fromTrainingJob"),
                "reason": status.get("reason") or ("New" if status.get("phase") is None else None),
                "message": status.get("message") or "",
            }
        )
    return {pool: sorted(jobs, key=_place) for pool, jobs in sorted(pools.items())}


def _place(job: Mapping[str, Any]) -> tuple[int, str, str, str]:
    return job["position"] or _NOWHERE, str(job["queuedAt"]), job["namespace"], job["job"]


def queue_tables(pools: Mapping[str, list[dict[str, Any]]], heads: Mapping[str, str], *, plain: bool) -> list[Table]:
    """A table for each pool, with a line about it above; in the plain form one table, with the pool in a column."""
    tables = [Table(QUEUE, [_queue_row(job) for job in jobs], heads.get(pool, pool)) for pool, jobs in pools.items()]
    if not plain:
        return tables
    rows = [[pool, *row] for pool, table in zip(pools, tables, strict=True) for row in table.rows]
    return [Table((Column("Pool"), *QUEUE), rows)]


def _queue_row(job: Mapping[str, Any]) -> list[str]:
    starts = job["startsInSeconds"]
    return [
        _text(job["position"]),
        job["job"],
        job["namespace"],
        _text(job["priority"]),
        str(job["gpus"]),
        _span(job["waitingSeconds"]),
        "" if starts is None else f"in {span(starts)}" if starts > 0 else "now",
        _text(job["priorityClass"]),
        str(job["attempts"]),
        _text(job["model"]),
        _text(job["reason"]),
        job["message"],
    ]


def of_pool(body: Mapping[str, Any]) -> dict[str, Any]:
    """A GPUPool in numbers."""
    status = part(body, "status")
    held, ready = part(status, "slotsInUse"), _condition(status, "Ready")
    slots, others = _number(status, "slots"), _number(status, "foreignSlots")
    used = {kind: _number(held, kind) for kind in ("training", "inference")}
    return {
        "name": body["metadata"]["name"],
        "ready": ready.get("status") == "True",
        "reason": ready.get("reason") or "",
        "message": ready.get("message") or "",
        "gpus": _number(status, "gpus"),
        "slots": slots,
        "free": max(0, slots - sum(used.values()) - others),
        "held": used,
        "others": others,
        "running": sum(_number(part(status, "running"), kind) for kind in used),
        "waiting": _number(part(status, "pending"), "total"),
    }


def pool_line(pool: Mapping[str, Any]) -> str:
    """A pool in one line, above its queue."""
    text = f"Pool {pool['name']}: {pool['gpus']} GPUs, {pool['free']} of {pool['slots']} slots free"
    text += f", {pool['running']} jobs have room, {pool['waiting']} wait"
    return text if pool["ready"] else f"{text}. Not ready: {pool['message'] or pool['reason']}"


def pools_table(pools: Sequence[Mapping[str, Any]]) -> Table:
    """The pools, each in a line."""
    rows = [
        [
            pool["name"],
            "yes" if pool["ready"] else "no",
            *(str(n) for n in (pool["gpus"], pool["slots"], pool["free"], *pool["held"].values(), pool["others"])),
            str(pool["running"]),
            str(pool["waiting"]),
            pool["message"],
        ]
        for pool in pools
    ]
    return Table(POOLS, rows, "Pools")


def teams(quotas: Iterable[Body], holders: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each namespace uses of each pool: by its GPUQuota, else by those of its jobs that may be seen."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for quota in quotas:
        entries = {e.get("name"): e for e in part(quota, "spec").get("pools") or ()}
        for used in part(quota, "status").get("pools") or ():
            gpus = part(entries.get(used.get("name")) or {}, "gpus")
            own, borrows = _number(gpus, "nominal"), gpus.get("borrowingLimit")
            admitted = part(used, "admitted")
            key = quota["metadata"]["namespace"], str(used.get("name"))
            found[key] = {
                "namespace": key[0],
                "pool": key[1],
                "slots": _number(used, "used"),
                "own": own,
                "most": None if borrows is None else own + borrows,
                "borrowed": _number(used, "borrowed"),
                "training": _number(admitted, "training"),
                "inference": _number(admitted, "inference"),
                "waiting": sum(_number(part(used, "pending"), kind) for kind in ("training", "inference")),
            }
    counted = set(found)
    for job in holders:
        key = job["namespace"], job["pool"]
        if key not in counted:
            team = found.setdefault(key, {"namespace": key[0], "pool": key[1], **_UNCOUNTED})
            team["slots"] += job["slots"]
            team["training" if job["job"].startswith(f"{SHORT['TrainingJob']}/") else "inference"] += 1
    return sorted(found.values(), key=lambda team: (team["pool"], -team["slots"], team["namespace"]))


def teams_table(found: Iterable[Mapping[str, Any]]) -> Table:
    """The teams, each in a line."""
    keys = ("namespace", "pool", "slots", "own", "most", "borrowed", "training", "inference", "waiting")
    return Table(TEAMS, [[_text(team[key]) for key in keys] for team in found], "Teams")


def holders(bodies: Iterable[Body], now: datetime) -> list[dict[str, Any]]:
    """The jobs that have room, those with most slots first."""
    found = []
    for body in bodies:
        status, assignments = part(body, "status"), part(body, "status").get("assignments") or []
        if status.get("phase") in ENDED or not assignments:
            continue
        progress = part(status, "progress")
        found.append(
            {
                "job": shown(body),
                "namespace": body["metadata"]["namespace"],
                "pool": str(part(body, "spec").get("pool") or "default"),
                "slots": sum(_number(a, "gpus") * _pods(a) for a in assignments),
                "phase": status.get("phase"),
                "seconds": seconds(status.get("runningSince") or status.get("admittedAt"), now),
                "percent": progress.get("percent"),
                "remainingSeconds": progress.get("remainingSeconds"),
                "nodes": sorted({str(a["node"]) for a in assignments if a.get("node")}),
            }
        )
    return sorted(found, key=lambda job: (-job["slots"], job["namespace"], job["job"]))


def _pods(assignment: Mapping[str, Any]) -> int:
    """Pods that an assignment stands for: those of many shards share one, as in `0-3,7`."""
    ranges = str(assignment.get("shards") or "")
    if not ranges:
        return 1
    total = 0
    for one in ranges.split(","):
        first, _, last = one.partition("-")
        total += int(last or first) - int(first) + 1 if first.isdecimal() and (last or first).isdecimal() else 1
    return total


def holders_table(found: Iterable[Mapping[str, Any]]) -> Table:
    """The jobs that have room, each in a line."""
    rows = [
        [
            job["job"],
            job["namespace"],
            job["pool"],
            str(job["slots"]),
            _text(job["phase"]),
            _span(job["seconds"]),
            "" if job["percent"] is None else f"{job['percent']}%",
            _span(job["remainingSeconds"]),
            ", ".join(job["nodes"]),
        ]
        for job in found
    ]
    return Table(HOLDERS, rows, "Jobs with room")


def slots_asked(body: Mapping[str, Any]) -> int:
    """GPU slots of all pods that the job runs at a time."""
    spec = part(body, "spec")
    pods = spec.get("nodes") if body["kind"] == "TrainingJob" else spec.get("parallelism")
    gpus = part(spec, "resources").get("gpus", 1)
    return int(gpus) * int(pods or 1)


def seconds(since: Any, now: datetime) -> int | None:
    """Seconds that have passed since a time as the API server writes it."""
    try:
        return max(0, int((now - datetime.fromisoformat(str(since))).total_seconds()))
    except (ValueError, TypeError):
        return None


def seconds_until(at: Any, now: datetime) -> int | None:
    """Seconds until a time as the API server writes it."""
    try:
        return max(0, int((datetime.fromisoformat(str(at)) - now).total_seconds()))
    except (ValueError, TypeError):
        return None


def part(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of an object that is one itself; empty where it is not."""
    found = body.get(name)
    return found if isinstance(found, Mapping) else {}


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((c for c in status.get("conditions") or () if c.get("type") == kind), {})


def _number(values: Mapping[str, Any], key: str) -> int:
    found = values.get(key)
    return found if isinstance(found, int) else 0


def _span(length: float | None) -> str:
    return "" if length is None else span(length)


def _text(value: Any) -> str:
    return "" if value is None else str(value)
