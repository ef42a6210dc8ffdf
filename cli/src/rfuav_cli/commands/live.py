"""Tables that are shown again and again, until Ctrl-C."""

import sys
import time
from collections.abc import Callable, Sequence

from rfuav_cli import tables
from rfuav_cli.tables import Table


def shown(look: Callable[[], Sequence[Table]], interval: float, *, wide: bool, headers: bool) -> None:
    """Show what `look` finds every `interval` seconds: in place on a terminal, else one below the other."""
    if not tables.on_terminal():
        while True:
            tables.show(look(), wide=wide, headers=headers)
            sys.stdout.write("\n")
            sys.stdout.flush()
            time.sleep(interval)
    from rich.console import Group  # noqa: PLC0415  (a tenth of a second)
    from rich.live import Live  # noqa: PLC0415

    console = tables.console()

    def drawn() -> Group:
        return Group(*(tables.rich(table, console.width, wide=wide, headers=headers) for table in look()))

    with Live(drawn(), console=console, auto_refresh=False, vertical_overflow="crop") as screen:
        while True:
            time.sleep(interval)
            screen.update(drawn(), refresh=True)
