import pytest

from model_store.policies.choose import PolicyName
from service.api.health import Health, Phase
from service.api.parameters import BatchQuery, ClassifyQuery, ModelQuery, PlanQuery
from service.api.schemas import (
    LiveResponse,
    ModelResponse,
    ModelsResponse,
    PlanResponse,
    ProblemResponse,
    ReadyResponse,
)
from service.errors import BudgetTooSmall, NotReady, ShuttingDown
from tests.api.conftest import Api


async def test_liveness_and_readiness_are_told_as_json(api: Api):
    live, ready = await api.http.get("/health/live"), await api.http.get("/health/ready?probe=1")

    assert live.json() == {"live": True}
    assert (ready.status_code, ready.json()) == (
        200,
        {"ready": True, "live": True, "models": ["net@2"]},
    )
    LiveResponse.model_validate(live.json())
    ReadyResponse.model_validate(ready.json())


async def test_a_server_that_drains_is_unready_and_goes_on_serving(api: Api):
    api.health.drain()

    ready = await api.http.get("/health/ready")
    answer = await api.http.post("/classify", content=b"x")

    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert (await api.http.get("/health/live")).status_code == 200
    assert answer.status_code == 200


async def test_a_dead_engine_turns_readiness_off(api: Api):
    api.is_engine_alive[0] = False

    assert (await api.http.get("/health/ready")).status_code == 503


def test_a_server_opens_once_and_never_again():
    health = Health(is_engine_alive=lambda: True, served=tuple)
    with pytest.raises(NotReady):
        health.refuse_unless_open()

    health.open()
    health.refuse_unless_open()
    assert health.is_ready
    health.close()
    health.drain()
    health.open()

    assert health.phase is Phase.CLOSING
    with pytest.raises(ShuttingDown):
        health.refuse_unless_open()


def test_an_end_announced_while_starting_is_not_forgotten():
    health = Health(is_engine_alive=lambda: True, served=tuple)

    health.drain()
    health.open()

    assert not health.is_ready


async def test_models_are_listed_and_described(api: Api):
    listed = await api.http.get("/models")
    described = await api.http.get("/models/net")

    assert listed.json() == {
        "models": [{"name": "net", "versions": ["1", "2"], "default_version": "2"}]
    }
    ModelsResponse.model_validate(listed.json())
    model = ModelResponse.model_validate(described.json())
    assert model.exits[1].latency_ms == {"1": 2.0, "32": 40.0}
    assert (model.exits[0].cumulative_macs, model.exits[1].direct_macs) == (110, 320)


async def test_a_version_is_named_in_the_query_or_in_the_path(api: Api):
    for path in ("/models/net?version=2", "/models/net@2"):
        assert (await api.http.get(path)).json()["version"] == "2"

    twice = await api.http.get("/models/net@2?version=2")
    assert (twice.status_code, twice.json()["parameter"]) == (422, "version")


async def test_a_model_that_is_not_there_is_told_what_is(api: Api):
    answer = await api.http.get("/models/net?version=7")

    assert answer.status_code == 404
    assert answer.json()["type"] == "/problems/model-not-found"
    assert answer.json()["available"] == ["net@1", "net@2"]


@pytest.mark.parametrize("path", ["/models?x=1", "/models/net?versoin=1", "/plan?images=1&img=1"])
async def test_unknown_parameters_are_refused_everywhere(api: Api, path: str):
    answer = await api.http.get(path)

    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-parameter")


async def test_a_plan_is_asked_for_in_either_unit(api: Api):
    answer = await api.http.get("/plan?images=10&budget_flops=2001&policy=topk&model=net@2")

    PlanResponse.model_validate(answer.json())
    (command,) = api.plan.commands
    assert (command.images, command.budget_macs) == (10, 1000)
    assert (command.policy, command.model) == (PolicyName.TOPK, "net@2")


async def test_a_budget_that_buys_nothing_is_told_the_least_that_does(api: Api):
    api.plan.error = BudgetTooSmall(minimum_macs=1100)

    answer = await api.http.get("/plan?images=10&budget_macs=7")

    assert (answer.status_code, answer.json()["minimum_macs"]) == (422, 1100)
    ProblemResponse.model_validate(answer.json())


async def test_a_plan_needs_a_server_that_is_open(api: Api):
    api.health.close()

    assert (await api.http.get("/plan?images=1")).status_code == 503


async def test_metrics_have_help_and_type(api: Api):
    await api.http.post("/classify", content=b"x")

    answer = await api.http.get("/metrics?name=x")

    lines = answer.text.splitlines()
    families = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert families == {line.split()[2] for line in lines if line.startswith("# HELP")}
    assert len(families) >= 8
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("path", "method", "model"),
    [
        ("/classify", "post", ClassifyQuery),
        ("/batch", "post", BatchQuery),
        ("/plan", "get", PlanQuery),
        ("/models/{name}", "get", ModelQuery),
    ],
)
async def test_every_parameter_is_described(
    api: Api, path: str, method: str, model: type[ClassifyQuery]
):
    schema = (await api.http.get("/openapi.json")).json()

    described = {
        parameter["name"]: parameter
        for parameter in schema["paths"][path][method]["parameters"]
        if parameter["in"] == "query"
    }
    assert set(described) == set(model.model_fields)
    for parameter in described.values():
        assert parameter["description"]
        assert parameter["schema"]["type"] in {"integer", "number", "string"}


async def test_limits_and_defaults_of_parameters_are_described(api: Api):
    schema = (await api.http.get("/openapi.json")).json()

    parameters = schema["paths"]["/classify"]["post"]["parameters"]
    schemas = {parameter["name"]: parameter["schema"] for parameter in parameters}
    assert (schemas["min_confidence"]["minimum"], schemas["min_confidence"]["maximum"]) == (0, 1)
    assert (schemas["top_k"]["minimum"], schemas["top_k"]["default"]) == (0, 5)
    assert schemas["detail"]["const"] == "exits"
    assert "default" not in schemas["deadline_ms"]
    (images,) = (p for p in schema["paths"]["/plan"]["get"]["parameters"] if p["name"] == "images")
    assert images["required"] is True


@pytest.mark.parametrize("path", ["/classify", "/batch"])
async def test_bodies_and_problems_are_described(api: Api, path: str):
    schema = (await api.http.get("/openapi.json")).json()

    operation = schema["paths"][path]["post"]
    assert "multipart/form-data" in operation["requestBody"]["content"]
    assert "MiB" in operation["requestBody"]["description"]
    statuses = {"400", "404", "408", "413", "415", "422", "500", "503", "504"}
    assert statuses <= set(operation["responses"])
    for status in statuses:
        (kind,) = operation["responses"][status]["content"]
        assert kind == "application/problem+json"
    assert "Retry-After" in operation["responses"]["503"]["headers"]
    assert "`deadline-infeasible`" in operation["responses"]["422"]["description"]


async def test_every_reference_of_the_schema_leads_somewhere(api: Api):
    answer = await api.http.get("/openapi.json")

    named = set(answer.json()["components"]["schemas"])
    used = {piece.partition('"')[0] for piece in answer.text.split("#/components/schemas/")[1:]}
    assert used <= named
    assert {"ClassifyResponse", "BatchResponse", "PlanResponse", "ProblemResponse"} <= used


async def test_the_schema_names_both_roots(api: Api):
    schema = (await api.http.get("/openapi.json")).json()

    assert [server["url"] for server in schema["servers"]] == ["/", "/v1"]
    assert set(schema["paths"]) == {
        *("/classify", "/batch", "/plan", "/models", "/models/{name}"),
        *("/health/live", "/health/ready", "/metrics"),
    }
