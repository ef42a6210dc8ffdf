"""`rfuav-operator run --settings FILE`: the command line."""

import argparse
import asyncio
import sys
from importlib.metadata import version

import structlog

from rfuav_kube.connection import ConnectionProblem
from rfuav_operator import settings as settings_module
from rfuav_operator.app import run
from rfuav_operator.configuration import SettingsError, add_run, log_json
from rfuav_operator.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 after a clean stop, 1 if it could not continue, 2 for invalid settings."""
    parser = argparse.ArgumentParser(prog="rfuav-operator", description="Queues, admits and runs drone-signal jobs.")
    parser.add_argument("--version", action="version", version=f"rfuav-operator {version('rfuav-operator')}")
    commands = parser.add_subparsers(dest="command", required=True)
    add_run(commands, "operator", prefix=settings_module.PREFIX, defaults=Settings(), example="leader.leaseSeconds=15")
    parsed = parser.parse_args(arguments)
    try:
        settings = settings_module.load(parsed.settings, overrides=parsed.set)
    except SettingsError as error:
        print(f"rfuav-operator: {error}", file=sys.stderr)
        return 2
    log_json(settings.log_level)
    try:
        asyncio.run(run(settings))
    except* (ConnectionProblem, OSError) as problems:
        structlog.get_logger().error("cannot continue", error="; ".join(_words(problems)))
        code = 1
    else:
        code = 0
    return code


def _words(problems: BaseExceptionGroup[BaseException]) -> list[str]:
    return [
        line
        for problem in problems.exceptions
        for line in (_words(problem) if isinstance(problem, BaseExceptionGroup) else [str(problem)])
    ]


if __name__ == "__main__":
    sys.exit(main())
