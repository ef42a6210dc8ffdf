"""`kubectl rfuav why JOB`: everything that stands between a job and its GPUs."""

import sys
from http import HTTPStatus
from typing import Any

from rfuav_cli import jobs, tables
from rfuav_cli.failures import USAGE, Failure, Refused
from rfuav_cli.options import Form, JobName, NoHeaders, Output, written
from rfuav_cli.session import Session
from rfuav_cli.tables import Column, Table

_WORDS = {True: "yes", False: "no", None: "?"}
_MARKS = {True: ("\N{CHECK MARK}", "green"), False: ("\N{BALLOT X}", "red"), None: ("\N{MIDDLE DOT}", "dim")}
_COLUMNS = (Column("OK"), Column("What"), Column("Detail", long=True))


def why(session: Session, job: JobName, *, output: Output = None, no_headers: NoHeaders = False) -> None:
    """Show what keeps a job from its GPUs.

    A checklist of all that stands between them. Of a running job: how it goes; of a failed one: why, and what to do.
    """
    from rfuav_cli import decoded  # noqa: PLC0415  (a third of a second)
    from rfuav_operator.core.guidance import checklist  # noqa: PLC0415

    body = jobs.one(session, job)
    name = (body.get("spec") or {}).get("pool") or "default"
    pool, quota = session.gets([jobs.path("GPUPool", "", name), jobs.path("GPUQuota", session.namespace, "default")])
    answers = {checklist.POOL: pool, checklist.QUOTA: quota}
    unread = {what for what, a in answers.items() if isinstance(a, Refused) and a.status != HTTPStatus.NOT_FOUND}
    steps = checklist.checklist(
        decoded.job(body),
        pool=None if isinstance(pool, Refused) else decoded.pool(pool),
        quota=None if isinstance(quota, Refused) else decoded.quota(quota),
        now=session.now,
        unread=unread,
    )
    status = body.get("status") or {}
    found: dict[str, Any] = {
        "job": jobs.shown(body),
        "namespace": session.namespace,
        "phase": status.get("phase"),
        "reason": status.get("reason"),
        "message": status.get("message"),
        "steps": [{"ok": step.ok, "what": step.what, "detail": step.detail} for step in steps],
    }
    match output:
        case Form.JSON | Form.YAML:
            written(found, output)
        case Form.NAME:
            raise Failure("why has no -o name: write -o json or yaml", USAGE)
        case _ if tables.on_terminal():
            _draw(found)
        case _:
            rows = [[_WORDS[step.ok], step.what, step.detail] for step in steps]
            sys.stdout.write(tables.plain(Table(_COLUMNS, rows), headers=not no_headers))


def _draw(found: dict[str, Any]) -> None:
    from rich.table import Table as Grid  # noqa: PLC0415  (a tenth of a second)
    from rich.text import Text  # noqa: PLC0415

    screen = tables.console()
    phase = found["phase"] or "New"
    reason = f" ({found['reason']})" if found["reason"] else ""
    screen.print(Text.assemble((found["job"], "bold"), " in namespace ", found["namespace"], ": ", phase, reason))
    grid = Grid.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for step in found["steps"]:
        mark, style = _MARKS[step["ok"]]
        words = Text(step["what"])
        if step["detail"]:
            words.append(f"\n{tables.clean(step['detail'])}", "default" if step["ok"] is False else "dim")
        grid.add_row(Text(mark, style), words)
    screen.print(grid)
