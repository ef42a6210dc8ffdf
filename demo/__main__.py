"""The command line: `python -m demo up`, as `make demo` calls it, and `python -m demo clean` (`make demo-clean`)."""

import sys

import typer
from rich.console import Console

from demo import run
from demo.errors import DemoError
from localcluster.errors import LocalClusterError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=run.__doc__)


@app.command()
def up() -> None:
    """Run the demo; the cluster stays up afterwards."""
    run.up()


@app.command()
def clean() -> None:
    """Remove what the demo made: the cluster and .demo/. Built programs and images stay cached."""
    run.clean()


def main() -> int:
    """Run the command line; what a person can act on is printed without a traceback."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        app(standalone_mode=False)
    except (DemoError, LocalClusterError) as error:
        errors.print(f"\nerror: {error}", style="red", markup=False)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        errors.print(
            "\ninterrupted. The cluster is left as it is: `make demo` goes on with it, `make demo-clean` removes it."
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
