"""`rfuav-operator run --settings FILE`: the command line."""

import argparse
import asyncio
import logging
import sys
from importlib.metadata import version
from pathlib import Path

import structlog

from rfuav_kube.connection import ConnectionProblem
from rfuav_operator import settings as settings_module
from rfuav_operator.app import run
from rfuav_operator.settings import Settings, SettingsError


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 after a clean stop, 1 when it could not go on, 2 for bad settings."""
    parser = argparse.ArgumentParser(prog="rfuav-operator", description="Queues, admits and runs drone-signal jobs.")
    parser.add_argument("--version", action="version", version=f"rfuav-operator {version('rfuav-operator')}")
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser(
        "run",
        help="run the operator",
        description="Settings: the file, then RFUAV_OPERATOR__SECTION__NAME of the environment, then --set.",
        epilog=_all_settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    runs.add_argument("--settings", "--config", type=Path, metavar="FILE", help="YAML file of settings")
    runs.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="one setting, as in leader.leaseSeconds=15"
    )
    parsed = parser.parse_args(arguments)
    try:
        settings = settings_module.load(parsed.settings, overrides=parsed.set)
    except SettingsError as error:
        print(f"rfuav-operator: {error}", file=sys.stderr)
        return 2
    _log_json(settings.log_level)
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


def _all_settings() -> str:
    lines = ["settings and their defaults:"]
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and hasattr(section, "model_fields"):
            lines += [
                f"  {field.alias or name}.{inner.alias}: {inner.default!r}  {inner.description or ''}".rstrip()
                for inner in section.model_fields.values()
            ]
        else:
            lines.append(f"  {field.alias or name}: {field.default!r}  {field.description or ''}".rstrip())
    return "\n".join(lines)


def _log_json(level: str) -> None:
    number = getattr(logging, level.upper())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
    )
    # Libraries log through the standard library; their lines become JSON too.
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            ],
        )
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)


if __name__ == "__main__":
    sys.exit(main())
