"""`kubectl rfuav top`: GPUs, slots and teams, and who holds what."""

import sys
from typing import Any

from rfuav_cli import jobs, rows, tables
from rfuav_cli.commands import live
from rfuav_cli.failures import USAGE, Failure, Refused
from rfuav_cli.options import Everywhere, Form, Interval, NoHeaders, Output, Watch, written
from rfuav_cli.session import Session


def top(
    session: Session,
    *,
    everywhere: Everywhere = False,
    output: Output = None,
    no_headers: NoHeaders = False,
    watch: Watch = False,
    interval: Interval = 2.0,
) -> None:
    """Show who holds which GPUs.

    The pools with their GPUs and slots, what each namespace uses of them, and the jobs that have room.
    """
    namespace = "" if everywhere else session.namespace

    def look() -> dict[str, Any]:
        found = jobs.listed(session, namespace)
        pools, quotas = session.lists([jobs.path("GPUPool"), jobs.path("GPUQuota", namespace)])
        held = rows.holders(found, session.now)
        hidden = [
            f"{what}: you may not read them in {where}"
            for what, answer, where in (
                ("GPUPools", pools, "this cluster"),
                ("GPUQuotas", quotas, f"namespace {namespace}" if namespace else "all namespaces"),
            )
            if isinstance(answer, Refused)
        ]
        return {
            "pools": [] if isinstance(pools, Refused) else [rows.of_pool(pool) for pool in pools],
            "teams": rows.teams([] if isinstance(quotas, Refused) else quotas, held),
            "jobs": held,
            "hidden": hidden,
        }

    def drawn(found: dict[str, Any]) -> list[tables.Table]:
        pools, teams, held = found["pools"], found["teams"], found["jobs"]
        shown = ((pools, rows.pools_table), (teams, rows.teams_table), (held, rows.holders_table))
        return [table(part) for part, table in shown if part]

    if output is Form.NAME:
        raise Failure("top has no -o name: write -o wide, json or yaml", USAGE)
    if watch:
        live.shown(lambda: drawn(look()), interval, wide=output is Form.WIDE, headers=not no_headers)
        return
    found = look()
    if output in (Form.JSON, Form.YAML):
        written(found, output)
        return
    if any(drawn(found)):
        tables.show(drawn(found), wide=output is Form.WIDE, headers=not no_headers)
    else:
        sys.stderr.write("There are no pools, and no job has room.\n")
    sys.stderr.writelines(f"Left out: {line}\n" for line in found["hidden"])
