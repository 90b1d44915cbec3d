import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import model_store.manifest
from model_store.errors import FormatUnknown, ManifestInvalid
from model_store.layout import MAX_MANIFEST_BYTES
from model_store.manifest import FileDigest, Manifest, ManifestDraft, manifest_schema
from model_store.manifest_json import parse_manifest

SCHEMA_PATH = Path(model_store.manifest.__file__).with_name("manifest.schema.json")
DELETED = object()


@pytest.fixture
def document(make_draft: Callable[..., ManifestDraft]) -> dict[str, Any]:
    """A valid manifest, as `json.loads` gives it."""
    draft = make_draft()
    names = (*draft.graph_files, "calibration.npz")
    files = {name: FileDigest(sha256="a" * 64, size_bytes=1) for name in names}
    whole = Manifest(**{**dict(draft), "files": files})
    return dict(json.loads(whole.model_dump_json()))


def _parse(document: dict[str, Any]) -> Manifest:
    return parse_manifest(Path("tiny/1"), json.dumps(document).encode())


def _change(document: dict[Any, Any], place: tuple[str | int, ...], value: object) -> None:
    *parents, last = place
    for key in parents:
        document = document[key]
    if value is DELETED:
        del document[last]
    else:
        document[last] = value


def test_a_manifest_survives_its_file(document: dict[str, Any]):
    manifest = _parse(document)

    assert parse_manifest(Path("tiny/1"), manifest.model_dump_json().encode()) == manifest


def test_costs_are_the_macs_of_the_stages(make_draft: Callable[..., ManifestDraft]):
    costs = make_draft().costs

    assert costs.cumulative_macs == (110, 330)
    assert costs.direct_macs == (110, 320)


def test_border_bytes_are_those_of_the_widest_border(make_draft: Callable[..., ManifestDraft]):
    widest = max(3 * 8 * 8, 2 * 8 * 8 + 4 * 4 * 4, 6 * 4 * 4)

    assert make_draft().border_bytes == 4 * widest


def test_the_committed_schema_is_the_generated_one():
    assert SCHEMA_PATH.read_text(encoding="utf-8") == manifest_schema()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        pytest.param(("surplus",), 1, "surplus: Extra inputs", id="unknown-field"),
        pytest.param(("note",), None, "note: Extra inputs", id="field-elsewhere"),
        pytest.param(("compaction",), DELETED, "compaction: Field required", id="missing-field"),
        pytest.param(("version",), "1", "version: Input should be a valid integer", id="text"),
        pytest.param(("version",), 0, "version: Input should be greater", id="version-zero"),
        pytest.param(("version",), 10**9, "version: Input should be less", id="version-too-high"),
        pytest.param(("name",), "Tiny", "name: String should match", id="name-upper-case"),
        pytest.param(("name",), "..", "name: String should match", id="name-climbs"),
        pytest.param(("name",), "tiny\n", "name: String should match", id="name-newline"),
        pytest.param(("runtime",), "pickle", "runtime: Input should be 'onnx'", id="runtime"),
        pytest.param(("executable",), True, "executable is True with runtime 'onnx'", id="code"),
        pytest.param(("labels",), ["cat"], "labels: Tuple should have at least 2", id="one-label"),
        pytest.param(("labels",), ["a", "a"], "labels more than once: ['a']", id="labels-repeat"),
        pytest.param(("labels",), ["a", ""], "labels.1: String should have", id="label-empty"),
        pytest.param(("input", "height"), 0, "input.height", id="no-height"),
        pytest.param(("input", "channels"), 1, "input.channels", id="grey"),
        pytest.param(("input", "std"), [1, 0, 1], "std must be positive", id="std"),
        pytest.param(("stages",), [], "stages: Tuple should have at least 1", id="no-stage"),
        pytest.param(
            ("stages", 0, "trunk", "macs"), 0, "trunk graphs/trunk-0.onnx: macs must be positive",
            id="free-trunk",
        ),
        pytest.param(("stages", 0, "trunk", "macs"), 2**53 + 1, "less than", id="inexact-macs"),
        pytest.param(("stages", 0, "classifier", "macs"), -1, "greater", id="negative-macs"),
        pytest.param(("stages", 0, "outputs"), [], "at least 1 item", id="no-output"),
        pytest.param(("stages", 0, "outputs", 0, "shape"), [], "at least 1 item", id="no-shape"),
        pytest.param(("stages", 0, "outputs", 0, "shape", 1), 0, "greater", id="empty-shape"),
        pytest.param(
            ("stages", 0, "outputs", 0, "name"), "coarse_0", "outputs more than once: ['coarse_0']",
            id="outputs-repeat",
        ),
        pytest.param(
            ("stages", 0, "classifier_inputs"), ["coarse_1"], "['coarse_1'] are not among",
            id="classifier-reads-what-is-not-there",
        ),
        pytest.param(
            ("stages", 0, "classifier_inputs"), ["coarse_0"] * 2, "more than once",
            id="classifier-reads-twice",
        ),
        pytest.param(
            ("stages", 0, "outputs", 0, "name"), "pixels", "stage 0 reads and returns ['pixels']",
            id="output-named-as-input",
        ),
        pytest.param(
            ("stages", 0, "outputs", 0, "name"), "coarse_1", "stage 1 reads and returns",
            id="output-named-as-the-next",
        ),
        pytest.param(
            ("stages", 1, "outputs"),
            [{"name": "coarse_1", "shape": [1]}, {"name": "unread", "shape": [1]}],
            "the last stage returns ['unread']",
            id="last-output-unread",
        ),
        pytest.param(
            ("stages", 0, "trunk", "file"), "graphs/gather.onnx", "graph files more than once",
            id="graph-files-repeat",
        ),
        pytest.param(
            ("stages", 0, "trunk", "file"), "graphs/trunk-0.pt", "runtime 'onnx' reads .onnx files",
            id="graph-of-another-runtime",
        ),
        pytest.param(("stages", 0, "trunk", "file"), "/etc/x.onnx", "String", id="absolute"),
        pytest.param(("stages", 0, "trunk", "file"), "graphs/../x.onnx", "String", id="climbs"),
        pytest.param(("stages", 0, "trunk", "file"), "graphs/.x.onnx", "String", id="hidden"),
        pytest.param(("calibration",), "other.npz", "calibration: Input should be", id="other"),
        pytest.param(("files", "graphs/trunk-0.onnx"), DELETED, "does not list", id="unlisted"),
        pytest.param(("files", "calibration.npz"), DELETED, "files does not list", id="no-table"),
        pytest.param(
            ("files", "manifest.json"), {"sha256": "a" * 64, "size_bytes": 1},
            "files lists ['manifest.json']", id="lists-itself",
        ),
        pytest.param(
            ("files", "../x"), {"sha256": "a" * 64, "size_bytes": 1}, "files lists ['../x']",
            id="lists-outside",
        ),
        pytest.param(("files", "calibration.npz", "sha256"), "A" * 64, "sha256", id="upper-case"),
        pytest.param(("files", "calibration.npz", "size_bytes"), 2**31 + 1, "at most", id="huge"),
        pytest.param(
            ("provenance", "created_at"), "2026-01-02T03:04:05+02:00", "be in UTC", id="not-utc"
        ),
        pytest.param(
            ("provenance", "created_at"), "2026-01-02T03:04:05", "must be in UTC", id="no-zone"
        ),
    ],
)  # fmt: skip
def test_a_manifest_that_contradicts_itself_is_refused(
    document: dict[str, Any], place: tuple[str | int, ...], value: object, message: str
):
    _change(document, place, value)

    with pytest.raises(ManifestInvalid) as refusal:
        _parse(document)

    assert message in str(refusal.value)
    assert str(refusal.value).startswith("tiny/1: manifest.json: ")


def test_a_classifier_cannot_read_a_tensor_called_logits(document: dict[str, Any]):
    document["stages"][0]["outputs"][1]["name"] = "logits"
    document["stages"][0]["classifier_inputs"] = ["logits"]

    with pytest.raises(ManifestInvalid, match="cannot read what it returns, 'logits'"):
        _parse(document)


@pytest.mark.parametrize("found", [2, 0, "1", True, 1.0, None, [1]])
def test_a_format_version_that_is_not_known_is_refused_with_those_that_are(
    document: dict[str, Any], found: object
):
    document["format_version"] = found

    with pytest.raises(FormatUnknown) as refusal:
        _parse(document)

    assert f"format_version is {found!r}; this reader knows version 1" in str(refusal.value)


def test_a_later_format_is_told_before_its_unknown_fields():
    with pytest.raises(FormatUnknown):
        _parse({"format_version": 2, "novelty": True})


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(b"", "not JSON", id="empty"),
        pytest.param(b"{", "not JSON", id="cut"),
        pytest.param(b"\xff\xfe{}", "not JSON", id="not-utf-8"),
        pytest.param(b"[]", "an object with a format_version", id="list"),
        pytest.param(b"{}", "an object with a format_version", id="no-version"),
        pytest.param(b'{"a": 1, "a": 2}', "a key more than once among ['a', 'a']", id="repeat"),
        pytest.param(b'{"a": NaN}', "NaN is not a JSON number", id="nan"),
        pytest.param(b'{"a": 1e999}', "1e999 is beyond float64", id="infinity"),
        pytest.param(b"[" * 100_000, "not JSON", id="deep"),
        pytest.param(b"1" * 5000, "not JSON", id="long-number"),
        pytest.param(b" " * (MAX_MANIFEST_BYTES + 1), "more than 4194304 bytes", id="large"),
    ],
)
def test_what_is_no_manifest_at_all_is_refused(raw: bytes, message: str):
    with pytest.raises(ManifestInvalid) as refusal:
        parse_manifest(Path("tiny/1"), raw)

    assert message in str(refusal.value)


def test_many_problems_are_cut_short():
    with pytest.raises(ManifestInvalid) as refusal:
        _parse({"format_version": 1, "surplus": "x" * 1000})

    assert "and 7 more" in str(refusal.value)
    assert len(str(refusal.value)) < 2000


@pytest.mark.parametrize("runtime", ["onnx", "torchscript"])
def test_a_draft_names_every_graph_once(make_draft: Callable[..., ManifestDraft], runtime: str):
    draft = make_draft(runtime=runtime)

    assert len(set(draft.graph_files)) == len(draft.graph_files) == 6
    assert len(make_draft(runtime=runtime, with_compaction=False).graph_files) == 4


def test_a_number_that_json_cannot_hold_is_refused_before_it_is_written(
    make_draft: Callable[..., ManifestDraft],
):
    draft = make_draft().model_dump()
    draft["provenance"]["results"] = {"loss": float("nan")}

    with pytest.raises(ValidationError, match="finite"):
        ManifestDraft(**draft)
