"""``python -m service.frontends.process ORDERS``: one process of the group, by its role."""

import logging
import shutil
import sys
from typing import Final

from model_store.errors import BundleError
from service.api.context import current_request_id
from service.errors import ServiceError
from service.frontends.engine_process import run_engine
from service.frontends.front_end_process import run_front_end
from service.frontends.orders import Orders, Role, end_with_supervisor, is_supervised
from service.log import configure_logging
from service.models import CannotServe
from service.settings import Settings

EXIT_FAILED: Final = 1

logger = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """Run as ordered and return the exit status.

    Args:
        arguments: The orders, as JSON.
    """
    orders = Orders.model_validate_json(arguments[0])
    settings = Settings()
    configure_logging(settings.log_level, request_id=current_request_id.get)
    sys.setswitchinterval(settings.switch_interval_ms / 1000)
    if not end_with_supervisor(orders.supervisor):
        return EXIT_FAILED
    try:
        return (
            run_engine(orders, settings)
            if orders.role is Role.ENGINE
            else run_front_end(orders, settings)
        )
    except (BundleError, CannotServe, ServiceError, OSError) as refused:
        logger.critical("%s cannot run: %s", orders.name, refused)
        return EXIT_FAILED
    finally:
        if not is_supervised(orders.supervisor):
            # The supervisor was killed. Everybody tidies up; for the last nothing is in the way.
            shutil.rmtree(orders.folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
