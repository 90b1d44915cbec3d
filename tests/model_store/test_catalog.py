from collections.abc import Callable
from pathlib import Path

import pytest

from model_store.catalog import Catalog
from model_store.errors import BundleNotFound, StoreRootMissing
from model_store.manifest import ManifestDraft


@pytest.fixture
def store(
    tmp_path: Path,
    make_draft: Callable[..., ManifestDraft],
    make_bundle: Callable[[Path, ManifestDraft], Path],
) -> Path:
    """A root with `tiny@2`, `tiny@10` and `other@1`."""
    for name, version in (("tiny", 2), ("tiny", 10), ("other", 1)):
        make_bundle(tmp_path / "store", make_draft(name=name, version=version))
    return tmp_path / "store"


def test_names_and_versions_are_in_order(store: Path):
    catalog = Catalog([store])

    assert catalog.names() == ("other", "tiny")
    assert catalog.versions("tiny") == (2, 10)


def test_the_default_version_is_the_highest_integer(store: Path):
    assert Catalog([store]).find("tiny") == store / "tiny" / "10"


def test_a_version_is_found_by_its_number(store: Path):
    assert Catalog([store]).find("tiny@2") == store / "tiny" / "2"


@pytest.mark.parametrize(
    "reference", ["huge", "tiny@3", "tiny@", "tiny@02", "tiny@two", "tiny@2@2", "", "@2", "../tiny"]
)
def test_what_is_not_there_is_answered_with_what_there_is(store: Path, reference: str):
    with pytest.raises(BundleNotFound) as refusal:
        Catalog([store]).find(reference)

    assert refusal.value.available == ("other@1", "tiny@2", "tiny@10")
    assert str(refusal.value) == f"no bundle {reference!r}; available: other@1, tiny@2, tiny@10"


def test_an_unknown_model_has_no_versions(store: Path):
    with pytest.raises(BundleNotFound, match="available: other@1"):
        Catalog([store]).versions("huge")


def test_an_empty_store_says_so(tmp_path: Path):
    catalog = Catalog([tmp_path])

    assert catalog.names() == ()
    with pytest.raises(BundleNotFound, match="available: none"):
        catalog.find("tiny")


def test_later_roots_win_and_add(
    store: Path,
    tmp_path: Path,
    make_draft: Callable[..., ManifestDraft],
    make_bundle: Callable[[Path, ManifestDraft], Path],
):
    mine = tmp_path / "mine"
    for version in (10, 11):
        make_bundle(mine, make_draft(version=version))

    catalog = Catalog([store, mine])

    assert catalog.versions("tiny") == (2, 10, 11)
    assert catalog.find("tiny@2") == store / "tiny" / "2"
    assert catalog.find("tiny@10") == mine / "tiny" / "10"
    assert catalog.find("tiny") == mine / "tiny" / "11"
    assert Catalog([mine, store]).find("tiny@10") == store / "tiny" / "10"


def test_a_bundle_written_later_is_found(
    store: Path,
    make_draft: Callable[..., ManifestDraft],
    make_bundle: Callable[[Path, ManifestDraft], Path],
):
    catalog = Catalog([store])

    make_bundle(store, make_draft(version=11))

    assert catalog.find("tiny") == store / "tiny" / "11"


@pytest.mark.parametrize(
    "place", [".aside-tiny-3-0a", "tiny/03", "tiny/draft", "tiny/0", "Upper/1"]
)
def test_directories_of_other_names_are_not_looked_at(store: Path, place: str):
    (store / "tiny" / "2").rename(store / "moved")
    (store / place).parent.mkdir(exist_ok=True)
    (store / "moved").rename(store / place)

    catalog = Catalog([store])

    assert catalog.names() == ("other", "tiny")
    assert catalog.versions("tiny") == (10,)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256"])
def test_a_copy_that_was_interrupted_is_not_seen(store: Path, name: str):
    (store / "tiny" / "10" / name).unlink()

    assert Catalog([store]).find("tiny") == store / "tiny" / "2"


def test_files_beside_bundles_are_not_looked_at(store: Path):
    (store / "readme").write_text("")
    (store / "tiny" / "3").write_text("")

    assert Catalog([store]).versions("tiny") == (2, 10)


def test_a_root_that_is_not_there_is_an_error(store: Path, tmp_path: Path):
    catalog = Catalog([store, tmp_path / "mistyped"])

    with pytest.raises(StoreRootMissing, match="mistyped is no directory"):
        catalog.names()
