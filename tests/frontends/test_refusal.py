import multiprocessing
from collections.abc import Mapping

import pytest

from service.frontends.refusal import ForeignWorkers, refuse_foreign_workers


@pytest.mark.parametrize(
    "environment",
    [{"WEB_CONCURRENCY": "4"}, {"WEB_CONCURRENCY": "many"}, {"SERVER_SOFTWARE": "gunicorn/23.0"}],
    ids=["several", "no number", "gunicorn"],
)
def test_servers_beside_each_other_are_refused(environment: Mapping[str, str]):
    with pytest.raises(ForeignWorkers, match="ANYTIME_FRONTENDS"):
        refuse_foreign_workers(environment)


@pytest.mark.parametrize("environment", [{}, {"WEB_CONCURRENCY": "1"}, {"WEB_CONCURRENCY": ""}])
def test_a_server_on_its_own_is_not(environment: Mapping[str, str]):
    refuse_foreign_workers(environment)


@pytest.mark.slow
def test_a_worker_of_uvicorns_is_refused_by_what_started_it():
    # uvicorn starts workers as multiprocessing does, from a fresh interpreter.
    worker = multiprocessing.get_context("spawn").Process(
        target=refuse_foreign_workers, args=({},), daemon=True
    )
    worker.start()
    worker.join()

    assert worker.exitcode == 1
