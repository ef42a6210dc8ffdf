"""The tests of streams run on the event loop of the gateway's server."""

import uvloop


def pytest_asyncio_loop_factories():
    return {"uvloop": uvloop.new_event_loop}
