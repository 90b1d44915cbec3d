"""The schema of `manifest.json`: the one description of a bundle that everybody else obeys.

docs/bundle-format.md explains every field; `manifest.schema.json` is generated from here. That the
files are what is said here is the reader's to check, that a graph is, the backend's.
"""

import json
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from math import prod
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from model_store.costs import ExitCosts
from model_store.layout import (
    CALIBRATION_FILE,
    GRAPH_PATTERN,
    MAX_CALIBRATION_BYTES,
    MAX_VERSION,
    NAME_PATTERN,
)

INPUT_TENSOR: Final = "pixels"  # what the first trunk reads
LOGITS_TENSOR: Final = "logits"  # what every classifier returns

_FLOAT32_BYTES: Final = 4
_MAX_EXACT: Final = 2**53  # every JSON reader, JavaScript's too, keeps integers up to here
_SUFFIX_BY_RUNTIME: Final = {"onnx": ".onnx", "torchscript": ".pt"}

Count = Annotated[int, Field(ge=1, le=_MAX_EXACT)]
Macs = Annotated[int, Field(ge=0, le=_MAX_EXACT)]
GraphFile = Annotated[str, Field(pattern=GRAPH_PATTERN, max_length=200)]
TensorName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]+$", max_length=200)]
Channels = tuple[float, float, float]


class BundleModel(BaseModel):
    """Frozen, and nothing unnoticed: a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TensorSpec(BundleModel):
    """A float32 tensor handed from stage to stage, or to a classifier."""

    name: TensorName
    shape: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)]  # without the batch axis


class Graph(BundleModel):
    """One computation in one file; its batch axis is free."""

    file: GraphFile
    macs: Macs  # per image


class Stage(BundleModel):
    """What runs between two exits, and the classifier at its end as a graph of its own.

    The trunk reads the previous stage's outputs by their names, the first one `pixels`. The
    classifier returns one tensor, `logits`.
    """

    trunk: Graph
    outputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1)]  # in order, finest scale first
    classifier: Graph
    classifier_inputs: Annotated[tuple[TensorName, ...], Field(min_length=1)]

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the tensors that the trunk returns, in order."""
        return tuple(output.name for output in self.outputs)

    @property
    def output_bytes(self) -> int:
        """Size of the features of one image after this stage."""
        return sum(_FLOAT32_BYTES * prod(output.shape) for output in self.outputs)

    @model_validator(mode="after")
    def _classifier_reads_outputs(self) -> Self:
        _refuse_repeats("outputs", self.output_names)
        _refuse_repeats("classifier_inputs", self.classifier_inputs)
        if unknown := sorted(set(self.classifier_inputs) - set(self.output_names)):
            raise ValueError(f"classifier_inputs {unknown} are not among {self.output_names}")
        if LOGITS_TENSOR in self.classifier_inputs:
            raise ValueError(f"a classifier cannot read what it returns, {LOGITS_TENSOR!r}")
        return self

    @model_validator(mode="after")
    def _trunk_costs(self) -> Self:
        # Exits must rise in cost: eq. (3) divides by what going on costs.
        if self.trunk.macs == 0:
            raise ValueError(f"trunk {self.trunk.file}: macs must be positive")
        return self


class ImageInput(BundleModel):
    """What the pixels must be: `model_store.preprocessing` carries it out."""

    height: Count
    width: Count
    channels: Literal[3]
    mean: Channels  # red, green, blue, of pixels in [0, 1]
    std: Channels

    @field_validator("std")
    @classmethod
    def _divides(cls, std: Channels) -> Channels:
        if min(std) <= 0:
            raise ValueError(f"std must be positive, not {std}")
        return std


class FileDigest(BundleModel):
    """Tells a file from every other."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=0, le=_MAX_EXACT)]


class Compaction(BundleModel):
    """Weightless graphs for devices where rows cannot be picked outside the runtime."""

    gather: GraphFile  # (x, rows int64) -> y, along axis 0
    concat: GraphFile  # (a, b) -> y, along axis 0


class Provenance(BundleModel):
    """Where the weights come from. Nobody decides by it."""

    recipe: dict[str, JsonValue]
    data_digest: str  # of what was trained on; the same data give the same
    seed: int
    versions: dict[str, str]  # by package
    results: dict[str, JsonValue]
    created_at: datetime  # UTC
    note: str | None

    @field_validator("created_at")
    @classmethod
    def _is_utc(cls, created_at: datetime) -> datetime:
        if created_at.utcoffset() != timedelta(0):
            raise ValueError(f"created_at must be in UTC, not {created_at.isoformat()}")
        return created_at


class ManifestDraft(BundleModel):
    """A manifest before its files are digested: what the writer is given."""

    format_version: Literal[1]
    name: Annotated[str, Field(pattern=NAME_PATTERN, max_length=100)]
    version: Annotated[int, Field(ge=1, le=MAX_VERSION)]
    runtime: Literal["onnx", "torchscript"]
    executable: bool  # True where opening a graph runs its author's code
    labels: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=2)]
    input: ImageInput
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    compaction: Compaction | None
    calibration: Literal["calibration.npz"]
    provenance: Provenance

    @property
    def costs(self) -> ExitCosts:
        """Price of every exit."""
        return ExitCosts(
            tuple(stage.trunk.macs for stage in self.stages),
            tuple(stage.classifier.macs for stage in self.stages),
        )

    @property
    def border_bytes(self) -> int:
        """Most bytes one image ever holds between stages: of the input or of a stage's outputs."""
        pixels = _FLOAT32_BYTES * self.input.channels * self.input.height * self.input.width
        return max(pixels, *(stage.output_bytes for stage in self.stages))

    @property
    def graph_files(self) -> tuple[str, ...]:
        """Every graph of the bundle: trunks and classifiers in order, then compaction's."""
        by_stage = (file for s in self.stages for file in (s.trunk.file, s.classifier.file))
        last = (self.compaction.gather, self.compaction.concat) if self.compaction else ()
        return (*by_stage, *last)

    @model_validator(mode="after")
    def _says_whether_it_is_code(self) -> Self:
        if self.executable != (self.runtime == "torchscript"):
            raise ValueError(f"executable is {self.executable} with runtime {self.runtime!r}")
        return self

    @model_validator(mode="after")
    def _names_graphs(self) -> Self:
        _refuse_repeats("labels", self.labels)
        _refuse_repeats("graph files", self.graph_files)
        suffix = _SUFFIX_BY_RUNTIME[self.runtime]
        if strange := [file for file in self.graph_files if not file.endswith(suffix)]:
            raise ValueError(f"runtime {self.runtime!r} reads {suffix} files, not {strange}")
        return self

    @model_validator(mode="after")
    def _stages_join(self) -> Self:
        read: tuple[str, ...] = (INPUT_TENSOR,)
        for stage_index, stage in enumerate(self.stages):
            if shared := sorted(set(read) & set(stage.output_names)):
                raise ValueError(f"stage {stage_index} reads and returns {shared}: use other names")
            read = stage.output_names
        if unread := sorted(set(read) - set(self.stages[-1].classifier_inputs)):
            raise ValueError(f"the last stage returns {unread}, which nothing reads")
        return self


class Manifest(ManifestDraft):
    """`manifest.json`, whole."""

    files: dict[str, FileDigest]  # every file of the bundle but the manifest and its digest

    @model_validator(mode="after")
    def _lists_what_it_reads(self) -> Self:
        needed = {*self.graph_files, CALIBRATION_FILE}
        if missing := sorted(needed - set(self.files)):
            raise ValueError(f"files does not list {missing}")
        if strange := sorted(set(self.files) - needed):
            raise ValueError(f"files lists {strange}, which nothing in the manifest reads")
        size_bytes = self.files[CALIBRATION_FILE].size_bytes
        if size_bytes > MAX_CALIBRATION_BYTES:
            raise ValueError(
                f"{CALIBRATION_FILE} has {size_bytes} bytes: at most {MAX_CALIBRATION_BYTES}"
            )
        return self


def manifest_schema() -> str:
    """Return the JSON Schema of `manifest.json`, as `manifest.schema.json` holds it."""
    return json.dumps(Manifest.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def _refuse_repeats(what: str, names: Iterable[str]) -> None:
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{what} more than once: {repeated}")
