import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings, name_unknown_variables, read_environment

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch):
    for name in read_environment():
        if name.startswith("ANYTIME_"):
            monkeypatch.delenv(name)


def test_every_setting_is_documented_with_its_default():
    rows = dict(re.findall(r"^\| `ANYTIME_([A-Z_]+)` \| `?(.*?)`? \|", DOCUMENT.read_text(), re.M))

    assert {name.lower() for name in rows} == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        told = rows[name.upper()]
        if name != "model_store":
            assert told == ("unset" if field.default is None else str(field.default).lower())
        assert field.description


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANYTIME_PORT", "9000")
    monkeypatch.setenv("ANYTIME_MAX_BODY_MIB", "2")
    monkeypatch.setenv("ANYTIME_MAX_MEGAPIXELS", "0.5")

    settings = Settings()

    assert settings.port == 9000
    assert settings.max_body_bytes == 2 * 2**20
    assert settings.max_pixels == 500_000


def test_the_default_store_is_the_repositorys_own():
    (root,) = Settings().model_store

    assert root.parts[-2:] == ("model_store", "bundles")


def test_roots_are_separated_by_colons(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANYTIME_MODEL_STORE", "/a:b::c/")

    assert Settings().model_store == (Path("/a"), Path("b"), Path("c"))


@pytest.mark.parametrize("roots", ["/a:s3://bucket/models", ":"])
def test_roots_that_cannot_be_opened_are_refused(monkeypatch: pytest.MonkeyPatch, roots: str):
    monkeypatch.setenv("ANYTIME_MODEL_STORE", roots)

    with pytest.raises(ValidationError, match=r"s3://bucket/models|no root"):
        Settings()


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANYTIME_DEFAULT_MODEL", "")

    assert Settings().default_model is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("DEVICE", "tpu"),
        ("BODY_TIMEOUT_S", "inf"),
        ("MAX_BATCH", "0"),
        ("LOG_LEVEL", "loud"),
        ("DRAIN_S", "-1"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
):
    monkeypatch.setenv(f"ANYTIME_{name}", value)

    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_a_misspelt_setting_is_named_with_the_nearest_there_is():
    environment = {"ANYTIME_MAX_BODI_MIB": "1", "ANYTIME_PORT": "1", "ANYTIME_TEST_DATA": "x"}

    assert name_unknown_variables(environment) == (
        "ANYTIME_MAX_BODI_MIB (nearest: ANYTIME_MAX_BODY_MIB)",
    )


def test_bodies_may_always_take_as_much_as_one_of_the_largest():
    settings = Settings(max_buffered_mib=1, max_batch_body_mib=300)

    assert settings.max_buffered_bytes == 300 * 2**20


def test_lanes_and_threads_are_left_to_measurement_unless_said():
    assert (Settings().lanes, Settings().threads) == (None, None)
    assert (Settings(lanes=2, threads=3).lanes, Settings(lanes=2, threads=3).threads) == (2, 3)
