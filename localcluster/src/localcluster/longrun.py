"""Commands that take minutes: what they do and for how long is shown while they run, their output only when they fail.

In: a command and what to call it. Out: lines on the console, a spinner with the elapsed time where it is a terminal.
"""

import subprocess
import tempfile
import time
from pathlib import Path

from rich.console import Console

from localcluster.errors import LocalClusterError

_LOOK = 0.2  # seconds
_REMIND = 60.0  # seconds between lines where there is no terminal
_TAIL = 40  # lines of output that an error quotes


def watched(
    command: list[str],
    doing: str,
    console: Console,
    *,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
) -> None:
    """Run a long command; raise LocalClusterError with the end of its output when it fails."""
    started = time.monotonic()
    said = started
    if not console.is_terminal:
        console.print(f"{doing} ...")
    with tempfile.TemporaryFile("w+") as output, console.status(doing) as status:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=cwd, env=environment
        ) as process:
            while process.poll() is None:
                now = time.monotonic()
                status.update(f"{doing} ({now - started:.0f} s)")
                if not console.is_terminal and now - said >= _REMIND:
                    said = now
                    console.print(f"{doing}: still running after {now - started:.0f} s")
                time.sleep(_LOOK)
        if process.returncode != 0:
            output.seek(0)
            tail = "".join(output.readlines()[-_TAIL:])
            raise LocalClusterError(f"{doing} failed:\n{tail}")
    console.print(f"{doing}: {time.monotonic() - started:.0f} s")
