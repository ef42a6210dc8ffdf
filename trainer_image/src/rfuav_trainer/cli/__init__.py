"""The command line: the commands of `rfuav-trainer`, and how each of them ends.

In: arguments and the environment. Out: a call into the packages below, and the exit code.
It must not know how the work is done, and imports what a command needs only when that command runs.
"""
