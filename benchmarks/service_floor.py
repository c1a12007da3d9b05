"""What the service is compared with: a bare FastAPI route that makes the same query in the same way.

No tokens, no limits, no headers, no metrics, no models: connection, query, JSON. Served by uvicorn as
`reconciler serve` does it.
"""

from __future__ import annotations

import sys
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Query
from fastapi.responses import Response

from benchmarks.service_reads import read_one, read_page
from reconciler.runtime.thread_connections import ThreadConnections


def make_app(dsn: str) -> FastAPI:
    """Make the bare application.

    Args:
        dsn: Of the database.
    """
    app = FastAPI()
    connections = ThreadConnections(dsn, most=10)

    @app.get("/jobs/{name}")
    def get_job(name: str) -> Response:
        with connections.connection() as conn:
            return Response(read_one(conn, name), media_type="application/json")

    @app.get("/jobs")
    def list_jobs(after: str = "", limit: Annotated[int, Query(le=500)] = 50) -> Response:
        with connections.connection() as conn:
            return Response(read_page(conn, after, limit), media_type="application/json")

    return app


if __name__ == "__main__":
    uvicorn.run(
        make_app(sys.argv[1]),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        log_config=None,
        access_log=False,
        server_header=False,
    )
