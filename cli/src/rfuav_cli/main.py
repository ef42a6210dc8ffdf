"""The program `kubectl-rfuav`, which kubectl runs as `kubectl rfuav`.

In: the words of the command line. Out: an exit code; errors are one sentence on stderr.
"""

import os
import sys
from importlib import import_module, metadata
from typing import Annotated

import typer
import typer.core
import typer.main
from typer.exceptions import TyperException

from rfuav_cli.failures import CLOSED_PIPE, INTERRUPTED, SUCCESS, USAGE, Failure
from rfuav_cli.options import with_cluster

PROGRAM = "kubectl rfuav"
_COMMANDS = {
    "queue": "queue",
    "why": "why",
    "top": "top",
    "logs": "logs",
    "stop": "change",
    "suspend": "change",
    "resume": "change",
    "wait": "wait",
    "preview": "preview",
}
"""Commands, and the modules of `commands` that have them."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kubectl-rfuav {metadata.version('rfuav-cli')}")
        raise typer.Exit


app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Jobs of RFUAV Operator: the queue, why a job waits, GPUs, logs, and new jobs from flags.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)  # fmt: skip
submit = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Create a job from flags.")


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Jobs of RFUAV Operator: the queue, why a job waits, GPUs, logs, and new jobs from flags."""
    del version


for _name, _module in _COMMANDS.items():
    app.command(_name)(with_cluster(getattr(import_module(f"rfuav_cli.commands.{_module}"), _name)))
for _name in ("train", "infer"):
    submit.command(_name)(with_cluster(getattr(import_module("rfuav_cli.commands.submit"), _name)))
app.add_typer(submit, name="submit")


def run(words: list[str]) -> int:
    """Run a command; its exit code."""
    try:
        code = app(words, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except Failure as failure:
        return _say(str(failure), failure.code)
    except TyperException as error:
        text, at = error.format_message(), getattr(error, "ctx", None)
        if text.startswith("Usage: "):  # no command: the help
            sys.stderr.write(f"{text}\n")
            return USAGE
        hint = PROGRAM if at is None else at.command_path
        return _say(f"{text[:1].lower()}{text[1:].rstrip('.')}: see `{hint} --help`", USAGE)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to flush
        return CLOSED_PIPE
    return code if isinstance(code, int) else SUCCESS


def offered(command: str) -> tuple[list[str], list[str]]:
    """The commands below a command, and its options, for completion; below none: those of the program."""
    top = typer.main.get_command(app)
    chosen = top.commands.get(command, top) if isinstance(top, typer.core.TyperGroup) else top
    below = sorted(chosen.commands) if isinstance(chosen, typer.core.TyperGroup) else []
    return below, [name for option in chosen.params for name in option.opts if name.startswith("--")]


def _say(text: str, code: int) -> int:
    sys.stderr.write(f"error: {text}\n")
    return code
