"""What is served, and how callers refer to it."""

from pathlib import Path

import pytest

from model_store.catalog import Catalog
from service.backends.base import ModelKey
from service.errors import ModelNotFound
from service.models import NoDefaultModel, open_models


@pytest.fixture
def two_names(tmp_path: Path, write_scripted_bundle) -> Catalog:
    for name, version in (("birds", 2), ("birds", 10), ("cats", 1)):
        write_scripted_bundle(tmp_path, name=name, version=version)
    return Catalog([tmp_path])


def test_a_bare_name_means_its_highest_version(two_names):
    models = open_models(two_names, default="cats", allow_executable=False)

    assert models.find("birds").key == ModelKey("birds", "10")
    assert models.find(None).key == ModelKey("cats", "1")
    assert models.versions("birds") == ("2", "10")


def test_the_default_may_name_a_version_which_its_name_then_means(two_names):
    models = open_models(two_names, default="birds@2", allow_executable=False)

    assert models.find("birds").key == ModelKey("birds", "2")
    assert models.default_version("birds") == "2"


def test_an_older_version_is_served_beside_the_default(two_names):
    models = open_models(two_names, default="birds", allow_executable=False)

    assert models.find("birds@2").key.version == "2"


@pytest.mark.parametrize("reference", ["dogs", "birds@3", "birds@", "@2", ""])
def test_what_is_not_served_is_told_with_what_is(two_names, reference):
    models = open_models(two_names, default="cats", allow_executable=False)

    with pytest.raises(ModelNotFound) as missing:
        models.find(reference)

    assert missing.value.available == ("birds@10", "birds@2", "cats@1")


def test_two_names_need_a_default_and_none_have_none(two_names, tmp_path):
    (tmp_path / "nothing").mkdir()

    with pytest.raises(NoDefaultModel, match="birds, cats"):
        open_models(two_names, default=None, allow_executable=False)
    with pytest.raises(NoDefaultModel, match="none"):
        open_models(Catalog([tmp_path / "nothing"]), default=None, allow_executable=False)


def test_a_default_that_is_not_there_is_no_start(two_names):
    with pytest.raises(NoDefaultModel, match="dogs"):
        open_models(two_names, default="dogs", allow_executable=False)
