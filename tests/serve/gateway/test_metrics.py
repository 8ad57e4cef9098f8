"""What is counted of a request."""

from tests.serve.api import Api


async def samples(api: Api) -> dict[str, float]:
    text = (await api.http.get("/metrics")).text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


async def test_a_prompt_that_was_refused_costs_nothing(api_saying) -> None:
    api = api_saying("Hello")
    refused = api_saying("Hello", max_waiting=0)
    assert (await api.chat()).status_code == 200
    assert (await refused.chat()).status_code == 429
    name = 'cria_prompt_tokens_total{model="scripted"}'
    assert (await samples(api))[name] > 0
    assert (await samples(refused))[name] == 0


async def test_a_failure_of_the_server_is_counted_as_one(api_saying) -> None:
    api = api_saying("Hello")

    async def broken(*_: object) -> None:
        raise KeyError

    api.engine.submit = broken
    assert (await api.chat()).status_code == 500
    finished = {name for name in await samples(api) if name.startswith("cria_requests_total")}
    assert finished == {'cria_requests_total{endpoint="chat",model="scripted",status="500"}'}
