"""What is served, as callers ask for it: names and versions, and what each exit costs."""

from service.commands import ExitInfo, ModelInfo, ModelVersions
from service.engine.door import Prospects
from service.models import Model, Models


class ServedModels:
    """Describes models; latencies are those of the present moment.

    Args:
        models: All that is served.
        engine: Knows what stages take.
        backend_name: The runtime's.
        device: That it runs on.
    """

    def __init__(
        self, models: Models, engine: Prospects, *, backend_name: str, device: str
    ) -> None:
        self._models = models
        self._engine = engine
        self._backend_name = backend_name
        self._device = device

    def versions(self) -> tuple[ModelVersions, ...]:
        """Return every name that is served."""
        return tuple(map(self._versions_of, self._models.names()))

    def describe(self, reference: str) -> ModelInfo:
        """Return one model by ``name`` or ``name@version``.

        Raises:
            ModelNotFound: It is not served.
        """
        model = self._models.find(reference)
        image = model.bundle.manifest.input
        return ModelInfo(
            key=model.key,
            siblings=self._versions_of(model.key.name),
            labels=model.bundle.manifest.labels,
            height=image.height,
            width=image.width,
            channels=image.channels,
            backend=self._backend_name,
            device=self._device,
            exits=tuple(self._exit(model, k) for k in range(model.served.costs.num_exits)),
        )

    def _versions_of(self, name: str) -> ModelVersions:
        versions, default = self._models.versions(name), self._models.default_version(name)
        return ModelVersions(name=name, versions=versions, default_version=default)

    def _exit(self, model: Model, exit_index: int) -> ExitInfo:
        costs = model.served.costs
        return ExitInfo(
            index=exit_index,
            cumulative_macs=costs.cumulative_macs[exit_index],
            direct_macs=costs.direct_macs[exit_index],
            holdout_accuracy=model.accuracy_by_exit[exit_index],
            latency_s_by_batch_size={
                size: self._engine.expected_exit_s(model.key, exit_index, size)
                for size in self._engine.stage_costs.buckets
            },
        )
