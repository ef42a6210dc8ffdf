"""The one error of the demo: something a person can act on."""


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""
