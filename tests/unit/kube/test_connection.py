"""What the API server is told of its client."""

from unit.kube.fake_api import answer, serving


async def test_requests_carry_the_name_of_the_program_and_its_token(tmp_path):
    heard = []

    async def handle(request, _body):
        heard.append((request.headers["User-Agent"], request.headers["Authorization"]))
        return answer(200, {})

    async with serving(tmp_path) as (api, connection):
        api.handle = handle
        await connection.request("GET", "/x")
    assert heard == [("test", "Bearer secret")]
