"""The bundle in the repository, served by the real application: a clone answers from here."""

import io
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from model_store.reader import Bundle, open_bundle
from service.app import create_app
from service.settings import Settings
from training.models.msdnet.cost import lazy_costs
from training.recipe import Network

ROOT = Path(__file__).parents[2] / "model_store" / "bundles"
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(ROOT / "cifar10-msdnet" / "1")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(model_store=(ROOT,), threads=1, max_batch=8))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


def picture(seed: int = 0) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(coarse).resize((48, 40)).save(sink, "PNG")
    return sink.getvalue()


def frames(count: int) -> bytes:
    shape = (count, 32, 32, 3)
    sink = io.BytesIO()
    np.save(sink, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    return sink.getvalue()


def test_its_costs_are_those_of_the_network_it_was_trained_as(bundle):
    network = Network.model_validate(bundle.manifest.provenance.recipe["network"])
    shape = network.shape(len(bundle.manifest.labels))

    assert list(bundle.costs.cumulative_macs) == [cost.macs for cost in lazy_costs(shape)]


def test_it_fits_the_repository(bundle):
    total = sum(file.size_bytes for file in bundle.manifest.files.values())

    assert total < 45 * MEBIBYTE


def test_it_says_how_right_it_is_and_on_what(bundle):
    accuracy = bundle.calibration.is_right().mean(axis=0)

    assert accuracy[0] > 0.85
    assert accuracy[-1] > 0.91
    assert bundle.manifest.provenance.results


async def test_it_answers_over_http(client):
    answer = await client.post("/classify", content=picture(), params={"deadline_ms": 5000})

    assert answer.status_code == 200
    body = answer.json()
    assert body["exit"] == {"index": 6, "count": 7, "reason": "last_exit"}
    assert body["deadline"]["met"] is True


async def test_every_exit_answers_alike_alone_and_in_a_batch(client):
    batch = await client.post(
        "/batch",
        content=frames(9),
        params={"detail": "exits"},
        headers={"content-type": "application/x-npy"},
    )
    pixels = np.load(io.BytesIO(frames(9)))
    sink = io.BytesIO()
    np.save(sink, pixels[4])

    alone = await client.post("/classify", content=sink.getvalue(), params={"detail": "exits"})

    for one, other in zip(batch.json()["results"][4]["exits"], alone.json()["exits"], strict=True):
        # Kernels differ with the batch size; 1e-4 on logits is what the export allows.
        assert one["prediction"]["confidence"] == pytest.approx(
            other["prediction"]["confidence"], abs=1e-4
        )


async def test_a_budget_over_http_is_kept(client, bundle):
    budget = 30 * bundle.costs.cumulative_macs[1]

    answer = await client.post(
        "/batch",
        content=frames(30),
        params={"budget_macs": budget},
        headers={"content-type": "application/x-npy"},
    )

    spent = answer.json()["budget"]["spent_macs"]
    assert 0.99 * budget < spent <= budget


@pytest.mark.images
async def test_photographs_of_any_size_are_answered(client, image_folder):
    photographs = sorted((image_folder / "imagenet-sample").glob("*.JPEG"))[:8]

    answers = [await client.post("/classify", content=p.read_bytes()) for p in photographs]

    assert [answer.status_code for answer in answers] == [200] * 8


@pytest.mark.images
@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_no_odd_file_is_the_servers_fault(client, image_folder):
    odd = [path for path in sorted((image_folder / "odd-images").rglob("*")) if path.is_file()]

    statuses = {
        p: (await client.post("/classify", content=p.read_bytes())).status_code for p in odd
    }

    assert {status for status in statuses.values() if status >= 500} == set()
    assert 200 in statuses.values()
