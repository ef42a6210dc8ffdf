"""Looks at the jobs until all have ended: a live table on a terminal, a line for each change elsewhere.

In: the cluster. Out: the last rows, and what each job waited for.
"""

import time
from datetime import UTC, datetime

from kubernetes.client.exceptions import ApiException
from rich.console import Console
from rich.live import Live
from urllib3.exceptions import HTTPError

from demo import tables
from demo.errors import DemoError
from demo.kube import Kube
from demo.rows import History, Row, row

LOOK_SECONDS = 1.0
MISSED_LOOKS = 30  # in a row


def until_done(kube: Kube, console: Console, *, limit: float) -> tuple[list[Row], History]:
    """Show the jobs until all are terminal or `limit` seconds are over; the caller judges the rows."""
    started = time.monotonic()
    history = History()
    rows: list[Row] = []
    missed = 0
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            elapsed = time.monotonic() - started
            try:
                rows = [row(job, datetime.now(UTC)) for job in kube.jobs()]
                missed = 0
            except (ApiException, HTTPError) as error:
                missed += 1
                if missed > MISSED_LOOKS:
                    raise DemoError(f"the API server does not answer: {error}") from error
            news = history.note(rows)
            if console.is_terminal:
                live.update(tables.live(rows, elapsed), refresh=True)
            else:
                for one in news:
                    console.print(tables.line(one, elapsed), markup=False, highlight=False)
            if (rows and all(one.terminal for one in rows)) or elapsed > limit:
                return rows, history
            time.sleep(LOOK_SECONDS)
