"""What stands between HTTP and an engine, which may be in another process; joins its parts."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from service.api.application import Application, Lifespan, Surroundings, create_application
from service.api.health import Health
from service.api.services import Services
from service.batch import BatchService
from service.classify import ClassifyService
from service.decode import Decoder
from service.engine.clock import Clock
from service.engine.door import EngineDoor
from service.models import Models, reference_of
from service.plan import PlanService
from service.served import ServedModels
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Front:
    """All parts of a server but its engine's own."""

    models: Models
    engine: EngineDoor
    backend_name: str
    device: str
    decoder: Decoder
    registry: CollectorRegistry
    clock: Clock

    def application(self, settings: Settings, lifespan: Lifespan) -> Application:
        """Return the application of one HTTP process.

        Args:
            settings: All knobs.
            lifespan: Starts what has to be, and ends it.
        """
        return create_application(
            self._services(settings),
            Surroundings(
                settings=settings,
                health=Health(is_engine_alive=lambda: self.engine.is_alive, served=self._served),
                registry=self.registry,
                lifespan=lifespan,
                clock=self.clock,
            ),
        )

    def _served(self) -> tuple[str, ...]:
        return tuple(sorted(reference_of(model.key) for model in self.models))

    def _services(self, settings: Settings) -> Services:
        return Services(
            classify=ClassifyService(
                models=self.models,
                decoder=self.decoder,
                engine=self.engine,
                clock=self.clock,
                soft_deadline_s=settings.soft_deadline_ms / 1000,
            ),
            batch=BatchService(
                models=self.models,
                decoder=self.decoder,
                engine=self.engine,
                clock=self.clock,
                window_size=settings.batch_window,
                soft_deadline_s=settings.batch_soft_deadline_ms / 1000,
            ),
            plan=PlanService(self.models, settings.batch_window),
            models=ServedModels(
                self.models, self.engine, backend_name=self.backend_name, device=self.device
            ),
        )
