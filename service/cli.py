"""The ``anytime`` command: settings from the environment, one server, until it is told to leave."""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Final

from pydantic import ValidationError

from model_store.errors import BundleError
from service.api.context import current_request_id
from service.api.server import DrainingServer
from service.app import create_app
from service.engine.clock import MonotonicClock
from service.errors import ServiceError
from service.frontends.refusal import refuse_foreign_workers
from service.frontends.supervisor import GroupPlan, serve_group
from service.log import configure_logging
from service.models import CannotServe
from service.settings import Settings, name_unknown_variables, read_environment

EXIT_FAILED: Final = 1

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal asks to leave.

    Args:
        arguments: Of the command line, without the program's name; None: the process's own.

    Returns:
        The process's exit status: 0 after leaving as asked, else why there was no start is in the
        log.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        settings = read_settings(options)
    except ValidationError as invalid:
        parser.error(str(invalid))
    configure_logging(settings.log_level, request_id=current_request_id.get)
    for phrase in name_unknown_variables(read_environment()):
        logger.warning("there is no setting %s", phrase)
    sys.setswitchinterval(settings.switch_interval_ms / 1000)
    return serve(settings)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    parser = argparse.ArgumentParser(
        prog="anytime",
        description="Serve image classification that answers on time and on budget.",
        epilog="Everything else is set by environment variables ANYTIME_…, see docs/settings.md.",
    )
    parser.add_argument("--host", help="address to listen on, in place of ANYTIME_HOST")
    parser.add_argument("--port", type=int, help="port to listen on, in place of ANYTIME_PORT")
    return parser


def read_settings(options: argparse.Namespace) -> Settings:
    """Return the environment's settings, with the command line's in place of some.

    Raises:
        ValidationError: One of them cannot be meant.
    """
    given = {name: value for name, value in vars(options).items() if value is not None}
    return Settings.model_validate({**Settings().model_dump(), **given})


def serve(settings: Settings) -> int:
    """Build the application, listen, and return the exit status once told to leave."""
    try:
        refuse_foreign_workers(read_environment())
        if settings.frontends > 1:
            return serve_group(group_plan(settings))
        app = create_app(settings)
    except (BundleError, CannotServe, ServiceError, OSError) as refused:
        logger.critical("cannot start: %s", refused)
        return EXIT_FAILED
    server = DrainingServer(app, settings, MonotonicClock())
    server.run()
    return 0 if server.started else EXIT_FAILED


def group_plan(settings: Settings) -> GroupPlan:
    """Return the processes that serve together; they read the same environment."""
    listening = {"ANYTIME_HOST": settings.host, "ANYTIME_PORT": str(settings.port)}
    return GroupPlan(
        num_front_ends=settings.frontends,
        host=settings.host,
        port=settings.port,
        environment={**read_environment(), **listening},
        leave_within_s=settings.drain_s + settings.shutdown_timeout_s,
    )
