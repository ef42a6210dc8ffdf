"""The live table of a running demo as a picture of a terminal.

In: rows. Out: SVG that loads nothing from elsewhere.
"""

import io
import re
from collections.abc import Sequence

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME

from demo import tables
from demo.rows import Row

_FONTS = "font-family: ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace;"
# Rich's own form names a font that browsers would fetch from another server.
_FORM = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
    "font-family: Fira Code, monospace;", _FONTS
)
_WIDTH = 150  # columns


def svg(rows: Sequence[Row], elapsed: float) -> str:
    """The table of these jobs, `elapsed` seconds after they were applied."""
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print("[bold]$ make demo", highlight=False)
    console.print(tables.live(rows, elapsed))
    return console.export_svg(title="make demo", theme=SVG_EXPORT_THEME, code_format=_FORM, unique_id="demo")
