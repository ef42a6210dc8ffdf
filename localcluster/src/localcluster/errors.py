"""The one error that reaches people.

It says what is wrong and what to do about it, and the command line prints it without a traceback.
"""


class LocalClusterError(Exception):
    """Something the caller can act on. The message names the cause and the remedy."""
