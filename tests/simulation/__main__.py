"""`python -m simulation --seed 7` replays one history with its log; `--count 1000` plays many, fresh ones unless
`--first` says from where.

A seed that fails is printed as soon as it is found, and progress to stderr: what is known by then is not lost when the
command is stopped. At the end the first history that failed is shrunk, and its short script printed with the log of what
went wrong. The exit status is 1 then.
"""

import argparse
import random
import sys
from pathlib import Path

from simulation.many import Summary, executor, play_many
from simulation.play import Result, play
from simulation.script import Script, draw
from simulation.shrink import shrink

SHOWN = 40  # lines of the log before the failure
PROGRESS = 1000  # histories between two lines of progress
DRAWN = 10**9  # below which the first seed is drawn


def main() -> int:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seed", type=int, help="replay this history")
    what.add_argument("--count", type=int, help="play so many histories")
    what.add_argument("--script", type=Path, help="replay a script that was kept (JSON)")
    parser.add_argument("--first", type=int, help="the first seed of --count; without it, one is drawn and printed")
    parser.add_argument("--keep", action="store_true", help="print the script as it is, not shrunk")
    given = parser.parse_args()
    if given.count is None:
        script = Script.from_json(given.script.read_text()) if given.script else draw(given.seed)
        return _replay(script, keep=given.keep)
    first = random.SystemRandom().randrange(DRAWN) if given.first is None else given.first
    print(f"seeds {first} to {first + given.count - 1} (FIRST={first})", flush=True)
    with executor() as pool:
        summary = play_many(range(first, first + given.count), pool, told=_tell)
    if summary.failed:
        _explain(draw(summary.failed[0].seed), keep=given.keep)
        print(f"\nfailed: {', '.join(str(result.seed) for result in summary.failed)}")
    print(summary)
    return int(bool(summary.failed))


def _tell(summary: Summary, result: Result) -> None:
    if result.violation:
        print(f"seed {result.seed}: {result.violation}", flush=True)
    if summary.histories % PROGRESS == 0:
        print(summary, file=sys.stderr, flush=True)


def _replay(script: Script, *, keep: bool) -> int:
    result = play(script, verbose=True)
    print("\n".join(result.lines))
    outcome = result.violation or "all invariants held"
    print(f"seed {script.seed}: {outcome}; {result.events} events, {result.seconds:.0f} virtual s, {result.digest}")
    if result.violation:
        _explain(script, keep=keep)
    return int(bool(result.violation))


def _explain(script: Script, *, keep: bool) -> None:
    short = script if keep else shrink(script)
    result = play(short, verbose=True)
    at = next((i for i, line in enumerate(result.lines) if "!!!" in line), len(result.lines))
    print(f"\nseed {script.seed}: {result.violation}\n\n" + "\n".join(result.lines[max(0, at - SHOWN) : at + 1]))
    print(f"\nthe script ({len(short.actions)} of {len(script.actions)} actions):\n")
    print("\n".join(map(str, short.actions)))
    print(f"\nto keep it (python -m simulation --script FILE):\n{short.to_json()}")


if __name__ == "__main__":
    sys.exit(main())
