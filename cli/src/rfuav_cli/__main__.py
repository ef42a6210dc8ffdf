"""The program, and `python -m rfuav_cli`. Ctrl-C ends it silently from its first moment on."""

import signal
import sys


def main() -> None:
    """Entry point."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while modules are imported; the exit code is 130 either way
    from rfuav_cli.main import run  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
