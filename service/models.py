"""What is served: every model's bundle, with what the routes need of it worked out once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from model_store.catalog import Catalog
from model_store.expectation import CrossFit
from model_store.gains import GainTable
from model_store.reader import Bundle, open_bundle
from model_store.thresholds import HoldoutConfidences
from service.backends.base import ModelKey
from service.engine.request import ServedModel
from service.errors import ModelNotFound


class CannotServe(Exception):
    """What the roots hold cannot be served as the settings say."""


class MixedRuntimes(CannotServe):
    """The bundles are for different runtimes, and one process has one."""


class NoDefaultModel(CannotServe):
    """The roots hold several models, or none, and the settings name no default."""


@dataclass(frozen=True, slots=True)
class Model:
    """One version of one model."""

    key: ModelKey
    bundle: Bundle
    served: ServedModel  # what the engine needs to know of it
    holdout: HoldoutConfidences
    expectation: CrossFit
    accuracy_by_exit: tuple[float, ...]  # on the hold-out set, in [0, 1]

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """Work out what is asked of a bundle again and again."""
        confidences, is_right = bundle.calibration.confidences(), bundle.calibration.is_right()
        manifest = bundle.manifest
        image = manifest.input
        key = ModelKey(manifest.name, str(manifest.version))
        return cls(
            key=key,
            bundle=bundle,
            served=ServedModel(
                key=key,
                costs=bundle.costs,
                temperatures=tuple(bundle.calibration.temperatures.tolist()),
                border_bytes=manifest.border_bytes,
                input_shape=(image.channels, image.height, image.width),
                gains=GainTable.from_calibration(bundle.calibration),
            ),
            holdout=HoldoutConfidences(confidences),
            expectation=CrossFit(bundle.costs, confidences, is_right),
            accuracy_by_exit=tuple(is_right.mean(axis=0).tolist()),
        )


class Models:
    """All that is served, found by the references callers use.

    Args:
        models: By key; at least one.
        default: ``name`` or ``name@version`` that answers when a caller names none; None: the only
            name there is.

    Raises:
        NoDefaultModel: There is no telling which one is meant.
    """

    def __init__(self, models: Mapping[ModelKey, Model], *, default: str | None) -> None:
        self._models = dict(models)
        self._default_versions: dict[str, str] = {}
        for key in self._models:
            best = self._default_versions.get(key.name)
            if best is None or int(key.version) > int(best):
                self._default_versions[key.name] = key.version
        self.default = self._resolve_default(default)
        self._default_versions[self.default.name] = self.default.version

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def find(self, reference: str | None) -> Model:
        """Return the model meant by ``name``, ``name@version`` or nothing.

        Raises:
            ModelNotFound: It is not served; the error says what is.
        """
        if reference is None:
            return self._models[self.default]
        name, _, version = reference.partition("@")
        wanted = version or self._default_versions.get(name)
        if wanted is None or ModelKey(name, wanted) not in self._models or reference.endswith("@"):
            raise ModelNotFound(reference, available=sorted(map(reference_of, self._models)))
        return self._models[ModelKey(name, wanted)]

    def versions(self, name: str) -> tuple[str, ...]:
        """Return a name's versions, lowest first; empty where it is not served."""
        found = [key.version for key in self._models if key.name == name]
        return tuple(sorted(found, key=int))

    def default_version(self, name: str) -> str:
        """Return the version that a bare `name` means."""
        return self._default_versions[name]

    def names(self) -> tuple[str, ...]:
        """Return all names served, in order."""
        return tuple(sorted({key.name for key in self._models}))

    def _resolve_default(self, default: str | None) -> ModelKey:
        if default is None:
            names = self.names()
            if len(names) != 1:
                there = ", ".join(names) or "none"
                raise NoDefaultModel(f"ANYTIME_DEFAULT_MODEL must name one of the models: {there}")
            default = names[0]
        name, _, version = default.partition("@")
        key = ModelKey(name, version or self._default_versions.get(name, ""))
        if key not in self._models:
            there = ", ".join(sorted(map(reference_of, self._models))) or "none"
            raise NoDefaultModel(f"ANYTIME_DEFAULT_MODEL is {default!r}, there is {there}")
        return key


def reference_of(key: ModelKey) -> str:
    """Return ``name@version``."""
    return f"{key.name}@{key.version}"


def open_models(catalog: Catalog, *, default: str | None, allow_executable: bool) -> Models:
    """Open and verify every bundle of a catalog.

    Raises:
        BundleError: A bundle is damaged or foreign; the error names the file.
        NoDefaultModel: There is no telling which one answers by default.
    """
    models: dict[ModelKey, Model] = {}
    for name in catalog.names():
        for version in catalog.versions(name):
            path = catalog.find(f"{name}@{version}")
            model = Model.of(open_bundle(path, allow_executable=allow_executable))
            models[model.key] = model
    return Models(models, default=default)
