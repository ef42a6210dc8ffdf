"""`python -m fuzz --count 100000 --first 0`: one line of numbers, and every input that breaks a promise."""

import argparse
import time

from fuzz.play import play_many

_SHOWN = 5


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    began = time.monotonic()
    done = play_many(given.first, given.count)
    for failure in done.failures[:_SHOWN]:
        print(failure.show(), end="\n\n")
    share = done.decoded / done.inputs
    print(
        f"{done.inputs} inputs from {given.first}, {share:.1%} decoded, {len(done.failures)} failures; "
        f"{time.monotonic() - began:.0f} s"
    )
    return bool(done.failures)


if __name__ == "__main__":
    raise SystemExit(main())
