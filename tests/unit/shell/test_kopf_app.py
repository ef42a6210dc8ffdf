"""kopf reaches the API server by the same way as the operator's own requests."""

from unit.kube.fake_api import serving

from rfuav_operator.shell.reading import kopf_app
from rfuav_operator.shell.reading.state import ClusterState


async def test_kopf_goes_the_same_way(tmp_path):
    async with serving(tmp_path) as (_, connection):
        registry = kopf_app.handlers(ClusterState(None), connection)
        (login,) = registry._activities.get_all_handlers()
        found = login.fn()
        assert (found.server, found.scheme, found.token) == (connection.host, "Bearer", "secret")
        assert found.server.startswith("http://127.0.0.1:")
