"""The composition root: which parts a server is made of, and what keeps it from starting."""

from collections.abc import Mapping

import httpx
import pytest

from model_store.errors import ExecutableRefused
from model_store.reader import Bundle, open_bundle
from service.app import build_backend, create_app
from service.backends.base import ModelKey, StageBackend
from service.backends.fake import FakeBackend, FakeModel
from service.errors import BackendFailed
from service.models import MixedRuntimes
from service.settings import Settings


def free_backend(bundles: Mapping[ModelKey, Bundle], settings: Settings) -> StageBackend:
    script = FakeModel((0.5, 0.7, 0.9), num_classes=4, number_of=lambda _: 0)
    return FakeBackend(dict.fromkeys(bundles, script))


async def test_an_application_serves_what_lies_in_its_roots(scripted_root):
    app = create_app(Settings(model_store=(scripted_root,)), build=free_backend)
    transport = httpx.ASGITransport(app)

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        ready = await client.get("/health/ready")
        metrics = await client.get("/metrics")

    assert ready.json() == {"ready": True, "live": True, "models": ["scripted@1"]}
    # Warming up executed something, and nobody was charged for it.
    assert 'anytime_warm_up_macs_total{model="scripted@1"} 0.0' not in metrics.text
    assert "anytime_warm_up_macs_total" in metrics.text


def test_bundles_of_two_runtimes_do_not_go_into_one_process(tmp_path, write_scripted_bundle):
    onnx = open_bundle(write_scripted_bundle(tmp_path, name="a"))
    script = open_bundle(
        write_scripted_bundle(tmp_path, name="b", runtime="torchscript"), allow_executable=True
    )

    with pytest.raises(MixedRuntimes, match="onnx"):
        build_backend({ModelKey("a", "1"): onnx, ModelKey("b", "1"): script}, Settings())


@pytest.mark.parametrize("runtime", ["onnx", "torchscript"])
def test_a_graph_that_is_none_is_named(tmp_path, write_scripted_bundle, runtime):
    path = write_scripted_bundle(tmp_path, runtime=runtime)
    bundle = open_bundle(path, allow_executable=True)

    with pytest.raises(BackendFailed, match="graphs/"):
        build_backend({ModelKey("scripted", "1"): bundle}, Settings())


def test_code_is_opened_only_where_the_settings_allow_it(tmp_path, write_scripted_bundle):
    write_scripted_bundle(tmp_path, runtime="torchscript")

    with pytest.raises(ExecutableRefused):
        create_app(Settings(model_store=(tmp_path,)), build=free_backend)
