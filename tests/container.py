"""The test server in a container, where this machine has no PostgreSQL 17 with pg_cron of its own."""

from __future__ import annotations

import gc
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

DOCKERFILE_FOLDER = Path(__file__).parent / "postgres"
PASSWORD = "postgres"
START_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A running container with its connection string."""

    dsn: str
    handle: Any
    image: Any

    def stop(self) -> None:
        """Stop and remove the container; the image stays as the next run's cache."""
        self.handle.stop()


def find_engine_problem() -> str:
    """Tell why no container engine answers; empty where one does."""
    import docker  # type: ignore[import-untyped]

    problem = ""
    with warnings.catch_warnings():
        # The client leaves its socket open where nobody answers: let that be noticed here, not in some test.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            client = docker.from_env()
            client.ping()
            client.close()
        except docker.errors.DockerException as error:
            problem = str(error)
        gc.collect()
    return problem


def start_container(*, background_workers: bool) -> Container:
    """Build the image of tests/postgres/Dockerfile and start a container of it.

    Args:
        background_workers: How pg_cron runs jobs.

    Returns:
        The container, answering.

    Raises:
        MissingServerError: No container engine answers.
    """
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.image import DockerImage

    from tests.servers import MissingServerError

    if problem := find_engine_problem():
        raise MissingServerError(
            "no PostgreSQL 17 with pg_cron here, and no container engine answers:"
            f" run script/bootstrap --tests ({problem})"
        )
    image = DockerImage(path=DOCKERFILE_FOLDER, tag="reconciler-tests-postgres:17", clean_up=False).build()
    handle = (
        DockerContainer(str(image))
        .with_env("POSTGRES_PASSWORD", PASSWORD)
        .with_env("POSTGRES_DB", "app")
        .with_env("POSTGRES_HOST_AUTH_METHOD", "scram-sha-256")
        .with_exposed_ports(5432)
        .with_command(
            "postgres -c shared_preload_libraries=pg_cron -c cron.database_name=app"
            " -c cron.host=/var/run/postgresql -c fsync=off"
            f" -c cron.use_background_workers={'on' if background_workers else 'off'}"
            " -c max_worker_processes=30"
        )
    )
    handle.start()
    address = f"{handle.get_container_host_ip()}:{handle.get_exposed_port(5432)}"
    container = Container(dsn=f"postgresql://postgres:{PASSWORD}@{address}/app", handle=handle, image=image)
    give_up_at = time.monotonic() + START_SECONDS
    while True:
        try:
            with psycopg.connect(container.dsn, connect_timeout=2) as conn:
                conn.execute("CREATE EXTENSION IF NOT EXISTS pg_cron WITH SCHEMA pg_catalog")
        except psycopg.OperationalError as error:
            if time.monotonic() > give_up_at:
                container.stop()
                raise MissingServerError(f"the container does not answer: {error}") from error
            time.sleep(0.2)
        else:
            return container
