"""Tables: rich ones on a terminal, plain columns for everything else.

Plain columns have no colour and no wrapped lines, and a field is never empty, so that `awk` and `cut` can read them.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

EMPTY = "-"
_GAP = "   "
_SENTENCE = 40  # characters that a column of sentences needs
_STYLES = {
    "Running": "green", "Succeeded": "green", "yes": "green", "Failed": "red", "Cancelled": "red", "no": "red",
    "Admitted": "cyan", "Suspended": "yellow", "OnHold": "yellow",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        title: its title.
        wide: whether it is shown only with -o wide.
        right: whether it holds numbers.
        long: whether it holds sentences: on a terminal they are wrapped, and other columns are not.
        spare: whether a narrow terminal may do without it.
    """

    title: str
    wide: bool = False
    right: bool = False
    long: bool = False
    spare: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: as many as each row has fields.
        rows: of text.
        title: a line above it on a terminal; empty: none.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    title: str = ""


def on_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


def show(tables: Sequence[Table], *, wide: bool = False, headers: bool = True) -> None:
    """Print tables on stdout, in the form that suits it."""
    if not on_terminal():
        for number, table in enumerate(tables):
            sys.stdout.write("\n" * bool(number) + plain(table, wide=wide, headers=headers))
        return
    screen = console()
    for number, table in enumerate(tables):
        if number:
            screen.print()
        screen.print(rich(table, screen.width, wide=wide, headers=headers))


def plain(table: Table, *, wide: bool = False, headers: bool = True) -> str:
    """The table as plain columns."""
    chosen = [i for i, column in enumerate(table.columns) if wide or not column.wide]
    lines = [[table.columns[i].title.upper() for i in chosen]] if headers else []
    lines += [[clean(row[i]) or EMPTY for i in chosen] for row in table.rows]
    widths = [max((len(line[at]) for line in lines), default=0) for at in range(len(chosen))]
    return "".join(_GAP.join(f"{f:<{w}}" for f, w in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines)


def rich(table: Table, width: int, *, wide: bool = False, headers: bool = True) -> "RenderableType":
    """The table for a terminal of so many characters a line.

    Where it is too narrow, spare columns are left out, and sentences get lines of their own.
    """
    from rich.console import Group  # noqa: PLC0415  (a tenth of a second)
    from rich.padding import Padding  # noqa: PLC0415
    from rich.table import Table as Grid  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    short, long, beside = _fitting(table, width, wide=wide)
    columns = [*short, *(long if beside else [])]

    def grid(rows: Sequence[Sequence[str]], *, titles: bool) -> Grid:
        made = Grid(box=None, pad_edge=False, padding=(0, len(_GAP), 0, 0), show_header=titles, header_style="dim")
        for i in columns:
            column, needs = table.columns[i], None if table.columns[i].long else _natural(table, i)
            overflow: Any = "fold" if column.long else "ellipsis"
            justify: Any = "right" if column.right else "left"
            made.add_column(column.title, justify=justify, no_wrap=not column.long, overflow=overflow, min_width=needs)
        for row in rows:
            made.add_row(*(Text(clean(row[i]), style=_STYLES.get(row[i], "")) for i in columns))
        return made

    parts: list[RenderableType] = [Text(table.title, style="bold")] if table.title else []
    if beside or not long:
        return Group(*parts, grid(table.rows, titles=headers))
    for number, row in enumerate(table.rows):
        parts.append(grid([row], titles=headers and number == 0))
        parts += [Padding(Text(clean(row[i])), (0, 0, 0, 4)) for i in long if clean(row[i])]
    return Group(*parts)


def _fitting(table: Table, width: int, *, wide: bool) -> tuple[list[int], list[int], bool]:
    """Columns that fit beside each other, those with sentences, and whether there is room for these beside them."""
    chosen = [i for i, column in enumerate(table.columns) if wide or not column.wide]
    short = [i for i in chosen if not table.columns[i].long]
    long = [i for i in chosen if table.columns[i].long]

    def taken() -> int:
        return sum(_natural(table, i) + len(_GAP) for i in short)

    spare = [i for i in short if table.columns[i].spare]
    while taken() - len(_GAP) > width and spare:
        short.remove(spare.pop())
    left = width - taken()
    return short, long, left >= min(_SENTENCE, max((_natural(table, i) for i in long), default=0))


def _natural(table: Table, i: int) -> int:
    return max([len(table.columns[i].title), *(len(clean(row[i])) for row in table.rows)])


def console() -> "Console":
    """The terminal: names and messages are no markup."""
    from rich.console import Console  # noqa: PLC0415  (a tenth of a second)

    return Console(markup=False, highlight=False, emoji=False, soft_wrap=False)


def clean(text: str) -> str:
    """The text on one line, without what no terminal takes."""
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in line)
