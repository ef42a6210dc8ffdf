"""What ends a command, and its exit codes. docs/kubectl-rfuav.md lists them."""

SUCCESS = 0
FAILED = 1
"""The job has failed or was cancelled, or the cluster refused a change."""
USAGE = 2
"""A flag, an argument or a manifest is wrong."""
NOT_THERE = 3
"""There is no such object, or the user may not see or change it."""
NO_CLUSTER = 4
"""No cluster answers, kubectl has no credentials for one, or RFUAV is not installed in it."""
TIMEOUT = 124
INTERRUPTED = 130
CLOSED_PIPE = 141


class Failure(Exception):  # noqa: N818  it may be a plain "no"
    """Ends the command with a sentence on stderr.

    Args:
        text: what is wrong, and what to write instead.
        code: the exit code.
    """

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code


class Refused(Failure):
    """The API server's answer to a request that it did not fulfil.

    Args:
        status: of HTTP.
        reason: the API server's word, as in AlreadyExists.
        text: as for `Failure`.
        code: as for `Failure`.
    """

    def __init__(self, status: int, reason: str, text: str, code: int) -> None:
        super().__init__(text, code)
        self.status = status
        self.reason = reason
