"""`kubectl rfuav queue`: who waits, in which place, why, and when it starts."""

import sys
from typing import Any

from rfuav_cli import jobs, rows, tables
from rfuav_cli.commands import live
from rfuav_cli.failures import Refused
from rfuav_cli.options import Everywhere, Form, Interval, NoHeaders, Output, Watch, written
from rfuav_cli.session import Session

_PRIORITY_CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"


def queue(
    session: Session,
    *,
    everywhere: Everywhere = False,
    output: Output = None,
    no_headers: NoHeaders = False,
    watch: Watch = False,
    interval: Interval = 2.0,
) -> None:
    """Show the queue of each pool.

    Place, job, namespace, priority, GPUs, how long it waits, about when it starts, and why it waits.
    """
    namespace = "" if everywhere else session.namespace

    def look() -> list[dict[str, Any]]:
        found = jobs.listed(session, namespace)
        pools, classes = session.lists([jobs.path("GPUPool"), _PRIORITY_CLASSES])
        values = {} if isinstance(classes, Refused) else {c["metadata"]["name"]: c.get("value", 0) for c in classes}
        about = {} if isinstance(pools, Refused) else {p["metadata"]["name"]: rows.of_pool(p) for p in pools}
        waiting = rows.waiting(found, values, session.now)
        return [{"pool": pool, "of": about.get(pool), "jobs": waiting[pool]} for pool in waiting]

    def drawn(found: list[dict[str, Any]]) -> list[tables.Table]:
        heads = {one["pool"]: rows.pool_line(one["of"]) if one["of"] else f"Pool {one['pool']}" for one in found}
        by_pool = {one["pool"]: one["jobs"] for one in found}
        return rows.queue_tables(by_pool, heads, plain=not tables.on_terminal())

    if watch:
        live.shown(lambda: drawn(look()), interval, wide=output is Form.WIDE, headers=not no_headers)
        return
    found = look()
    if output in (Form.JSON, Form.YAML):
        written({"pools": found}, output)
    elif output is Form.NAME:
        sys.stdout.writelines(f"{job['job']}\n" for one in found for job in one["jobs"])
    elif found:
        tables.show(drawn(found), wide=output is Form.WIDE, headers=not no_headers)
    else:
        where = "in all namespaces" if everywhere else f"in namespace {namespace}"
        sys.stderr.write(f"No job waits {where}.\n")
