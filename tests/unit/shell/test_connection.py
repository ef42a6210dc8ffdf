"""What the API server is told of its client, and what another client is told of the way to the API server."""

from unit.shell.fake_api import answer, serving

from rfuav_operator.shell import kopf_app
from rfuav_operator.shell.state import ClusterState


async def test_requests_carry_the_name_of_the_program_and_its_token(tmp_path):
    heard = []

    async def handle(request, _body):
        heard.append((request.headers["User-Agent"], request.headers["Authorization"]))
        return answer(200, {})

    async with serving(tmp_path) as (api, connection):
        api.handle = handle
        await connection.request("GET", "/x")
    assert heard == [("test", "Bearer secret")]


async def test_kopf_goes_the_same_way(tmp_path):
    async with serving(tmp_path) as (_, connection):
        registry = kopf_app.handlers(ClusterState(None), connection)
        (login,) = registry._activities.get_all_handlers()
        found = login.fn()
        assert (found.server, found.scheme, found.token) == (connection.host, "Bearer", "secret")
        assert found.server.startswith("http://127.0.0.1:")
