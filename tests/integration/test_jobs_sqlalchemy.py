"""Queued jobs over SQLAlchemy's connections and sessions: a part of their transaction."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, LiteralString

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from reconciler.database.connect import connect
from reconciler.database.migrate import migrate_target
from reconciler.errors import ConfigError, InvalidInputError
from reconciler.runtime import enqueue, enqueue_async, get_job, get_job_async, get_jobs_by_status
from tests.declared import Site

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from tests.servers import Database

pytestmark = pytest.mark.one_server


HANDLERS: LiteralString = "SELECT handler FROM reconciler.jobs ORDER BY id"
ORDERS: LiteralString = "SELECT id FROM orders ORDER BY id"


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema of this release, and a table of orders."""
    site = Site(database)
    with connect(site.dsn) as conn:
        migrate_target(conn)
    site.run("CREATE TABLE public.orders (id int)")
    return site


@pytest.fixture
def engine(site: Site) -> Iterator[Engine]:
    """SQLAlchemy over psycopg."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: connect_raw(site))
    yield engine
    engine.dispose()


def connect_raw(site: Site) -> Any:
    """Connect as SQLAlchemy would."""
    return site.database.connect(autocommit=False)


def fail_after(session: Session) -> None:
    """Queue a job, and fail."""
    enqueue(session, "gone")
    raise ZeroDivisionError


def with_engine(site: Site, work: Callable[[AsyncEngine], Awaitable[None]]) -> None:
    """Do something with an engine whose connections are awaited."""

    async def do() -> None:
        import psycopg

        engine = create_async_engine(
            "postgresql+psycopg://",
            async_creator=lambda *_, **__: psycopg.AsyncConnection.connect(site.dsn),
        )
        try:
            await work(engine)
        finally:
            await engine.dispose()

    asyncio.run(do())


def test_a_job_is_committed_with_the_connections_transaction(site: Site, engine: Engine) -> None:
    """Also where it is the first that is done in it: SQLAlchemy has to know that there is something."""
    with engine.connect() as conn:
        put = enqueue(conn, "first")
        conn.commit()
        enqueue(conn, "gone")
        conn.rollback()
        conn.execute(text("INSERT INTO orders VALUES (1)"))
        enqueue(conn, "second")
        found = get_job(conn, put.id)
        assert found is not None
        assert found.handler == "first"
        assert site.rows(HANDLERS) == [("first",)]
        conn.commit()
        enqueue(conn, "left open")
    with engine.begin() as conn:
        enqueue(conn, "third")
    assert site.rows(HANDLERS) == [("first",), ("second",), ("third",)]
    assert site.rows(ORDERS) == [(1,)]


def test_a_job_is_committed_with_a_session(site: Site, engine: Engine) -> None:
    """Of whatever kind."""
    with Session(engine) as session:
        enqueue(session, "first")
        session.execute(text("INSERT INTO orders VALUES (1)"))
        session.commit()
        enqueue(session, "gone")
        session.rollback()
        with pytest.raises(ZeroDivisionError), session.begin():
            fail_after(session)
    scoped = scoped_session(sessionmaker(engine))
    enqueue(scoped, "second")
    scoped.commit()
    scoped.remove()
    assert site.rows(HANDLERS) == [("first",), ("second",)]
    assert site.rows(ORDERS) == [(1,)]


def test_a_savepoint_takes_the_job_away(site: Site, engine: Engine) -> None:
    """And an error in it leaves the rest of the transaction as it was."""
    with Session(engine) as session:
        enqueue(session, "kept")
        with pytest.raises(ZeroDivisionError), session.begin_nested():
            fail_after(session)
        with pytest.raises(InvalidInputError), session.begin_nested():
            enqueue(session, "h" * 201)
        session.commit()
    assert site.rows(HANDLERS) == [("kept",)]


def test_a_raw_connection_is_fine(site: Site, engine: Engine) -> None:
    """Its transaction is the caller's to end."""
    raw = engine.raw_connection()
    enqueue(raw, "kept")
    raw.commit()
    enqueue(raw, "gone")
    raw.close()
    with engine.connect() as conn:
        enqueue(conn.connection, "gone as well")
        driver: Any = conn.connection.driver_connection
        assert enqueue(driver, "so is this").created
        assert [job.handler for job in get_jobs_by_status(conn, "pending")] == [
            "so is this",
            "gone as well",
            "kept",
        ]
    assert site.rows(HANDLERS) == [("kept",)]


def test_an_engine_in_autocommit_mode_commits_at_once(site: Site, engine: Engine) -> None:
    """As it does with everything."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        enqueue(conn, "kept")
        assert site.rows(HANDLERS) == [("kept",)]


def test_awaited_connections_and_sessions_are_fine(site: Site) -> None:
    """With the same rules."""

    async def work(engine: AsyncEngine) -> None:
        async with engine.connect() as conn:
            await enqueue_async(conn, "first")
            await conn.commit()
            await enqueue_async(conn, "gone")
        async with engine.begin() as conn:
            await conn.execute(text("INSERT INTO orders VALUES (1)"))
            put = await enqueue_async(conn, "second")
            assert await get_job_async(conn, put.id) is not None
        async with AsyncSession(engine) as session:
            await enqueue_async(session, "third")
            await session.commit()
            await enqueue_async(session, "gone")
            await session.rollback()
        scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
        await enqueue_async(scoped, "fourth")
        await scoped.commit()
        await scoped.remove()
        async with engine.connect() as conn:
            raw = await conn.get_raw_connection()
            await enqueue_async(raw, "gone")

    with_engine(site, work)
    assert site.rows(HANDLERS) == [("first",), ("second",), ("third",), ("fourth",)]
    assert site.rows(ORDERS) == [(1,)]


def test_awaited_ones_are_told_apart(site: Site, engine: Engine) -> None:
    """Whatever is given to the wrong function."""

    async def work(awaited: AsyncEngine) -> None:
        async with AsyncSession(awaited) as session, awaited.connect() as conn:
            for wrong in (session, conn):
                with pytest.raises(ConfigError, match="is awaited"):
                    enqueue(wrong, "a")
        with Session(engine) as session, pytest.raises(ConfigError, match="is not awaited"):
            await enqueue_async(session, "a")
        with engine.connect() as conn, pytest.raises(ConfigError, match="is not awaited"):
            await enqueue_async(conn, "a")

    with_engine(site, work)


def test_another_driver_is_told(site: Site) -> None:
    """With the address that leads to psycopg."""
    engine = create_engine("sqlite://")
    with engine.connect() as conn, pytest.raises(ConfigError) as caught:
        enqueue(conn, "a")
    engine.dispose()
    assert caught.value.message.endswith("this is a sqlite3.Connection")
    assert "postgresql+psycopg://" in caught.value.remedy
    assert site.rows(HANDLERS) == []
