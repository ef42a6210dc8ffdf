"""The command line: `python -m demo up`, as `make demo` calls it, and `python -m demo clean` (`make demo-clean`)."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from demo import run
from demo.errors import DemoError
from localcluster.errors import LocalClusterError

_errors = Console(stderr=True, soft_wrap=True, highlight=False)
HELP = "Runs the demo on a Kubernetes cluster that it brings itself (docs/demo.md)."
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=HELP)


@app.command()
def up() -> None:
    """Run the demo; the cluster stays up afterwards."""
    try:
        run.up()
    except KeyboardInterrupt:
        _errors.print(
            "\ninterrupted. The cluster is left as it is: `make demo` goes on with it, `make demo-clean` removes it."
        )
        raise typer.Exit(130) from None


@app.command()
def clean() -> None:
    """Remove what the demo made: the cluster and .demo/. Built programs and images stay cached."""
    run.clean()


@app.command()
def picture(file: Annotated[Path, typer.Argument(help="Where the SVG goes.")]) -> None:
    """Draw the table of a demo that runs now, as a picture of a terminal."""
    file.write_text(run.picture(), encoding="utf-8")


def main() -> None:
    """Run the command line and exit; what a person can act on is printed without a traceback."""
    try:
        app()
    except (DemoError, LocalClusterError) as error:
        _errors.print(f"\nerror: {error}", style="red", markup=False)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
