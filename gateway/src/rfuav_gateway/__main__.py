"""`rfuav-gateway run --settings FILE`, `rfuav-gateway openapi`: the command line."""

import argparse
import json
import sys
from importlib.metadata import version

import structlog
import uvloop

from rfuav_gateway import settings as settings_module
from rfuav_gateway.app import routes, run
from rfuav_gateway.serving.reference import reference
from rfuav_gateway.settings import Settings
from rfuav_kube.connection import ConnectionProblem
from rfuav_operator.configuration import SettingsError, add_run, log_json


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 after a clean stop, 1 if it could not continue, 2 for invalid settings."""
    parser = argparse.ArgumentParser(prog="rfuav-gateway", description="Answers the REST interface with jobs.")
    parser.add_argument("--version", action="version", version=f"rfuav-gateway {version('rfuav-gateway')}")
    commands = parser.add_subparsers(dest="command", required=True)
    add_run(commands, "gateway", prefix=settings_module.PREFIX, defaults=Settings(), example="compat.enabled=true")
    prints = commands.add_parser("openapi", help="print the OpenAPI document of the interface")
    prints.add_argument("--markdown", action="store_true", help="as a page for people (docs/rest-api.md)")
    parsed = parser.parse_args(arguments)
    if parsed.command == "openapi":
        document = routes().openapi()
        sys.stdout.write(reference(document) if parsed.markdown else json.dumps(document, indent=2) + "\n")
        return 0
    try:
        settings = settings_module.load(parsed.settings, overrides=parsed.set)
    except SettingsError as error:
        print(f"rfuav-gateway: {error}", file=sys.stderr)
        return 2
    log_json(settings.log_level)
    try:
        uvloop.run(run(settings))
    except (ConnectionProblem, OSError) as problem:
        structlog.get_logger().error("cannot continue", error=str(problem))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
