"""Plan and apply of 10,000 jobs against floors and against octoDNS: `script/bench`."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import jsonschema
import jsonschema_rs
import psycopg
import yaml

from benchmarks.measure import Comparison, compare
from benchmarks.samples import write_jobs, write_records
from reconciler.database.apply import apply_target, plan_target
from reconciler.database.connect import connect
from reconciler.database.statements import Request
from reconciler.loader.config import load_config, resolve_target
from reconciler.loader.specs import load_specs
from reconciler.resources import read_resource
from reconciler.runtime.local import start_local_server, stop_local_server

FILES = 100
JOBS_PER_FILE = 100

_SCHEDULE_ONE = "SELECT cron.schedule(%s, %s, %s)"
_SCHEDULE_ALL = """
    SELECT cron.schedule(name, schedule, command)
      FROM unnest(%s::text[], %s::text[], %s::text[]) AS t (name, schedule, command)
"""


def read_request(config: Path) -> Request:
    """Load the specs as `reconciler plan` does."""
    loaded = load_config(config)
    target = resolve_target(loaded, None, environment={})
    return Request(specs=load_specs(loaded, target), owner=loaded.owner, target=target)


def plan_everything(config: Path, dsn: str) -> None:
    """Do what `reconciler plan` does, from files to the plan."""
    request = read_request(config)
    with connect(dsn) as conn:
        planned = plan_target(conn, request)
    assert planned.plan.changes == (), planned.plan.changes[:3]


def parse_and_select(config: Path, dsn: str, *, loader: type | None) -> None:
    """Do the least that any such tool must: parse the files, read cron.job once."""
    for path in sorted((config.parent / "jobs.d").iterdir()):
        text = path.read_text()
        if loader is None:
            for _ in yaml.parse(text, Loader=yaml.CSafeLoader):
                pass
        else:
            yaml.load(text, Loader=loader)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SELECT * FROM cron.job").fetchall()


def apply_and_forget(request: Request, dsn: str) -> None:
    """Create everything in one transaction; put the target back afterwards."""
    with connect(dsn) as conn:
        conn.execute("DROP SCHEMA IF EXISTS reconciler CASCADE")
        conn.execute("DELETE FROM cron.job")
        planned = plan_target(conn, request)
        apply_target(conn, request, expected=planned.fingerprints(), shown=planned)


def schedule_and_forget(request: Request, dsn: str, *, how: str) -> None:
    """Make the same entries with bare cron.schedule calls in one transaction.

    Args:
        request: With the specs.
        dsn: Of the target.
        how: statement, all calls in one statement; pipeline, without waiting for answers; calls, one by one.
    """
    names = [spec.name for spec in request.specs]
    schedules = [json.loads(spec.document)["schedule"] for spec in request.specs]
    commands = [f"CALL reconciler.run_job('{name}')" for name in names]
    rows = list(zip(names, schedules, commands, strict=True))
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("DROP SCHEMA IF EXISTS reconciler CASCADE")
        conn.execute("DELETE FROM cron.job")
        with conn.transaction():
            if how == "pipeline":
                conn.cursor().executemany(_SCHEDULE_ONE, rows)
            elif how == "calls":
                for row in rows:
                    conn.execute(_SCHEDULE_ONE, row)
            else:
                conn.execute(_SCHEDULE_ALL, (names, schedules, commands))


def plan_records(config: Path) -> None:
    """Plan with octoDNS: nothing to change."""
    from octodns.manager import Manager

    Manager(str(config)).sync(dry_run=True)


def run_process(*args: str) -> None:
    """Run a Python process to its end."""
    subprocess.run([sys.executable, *args], check=True, stdout=subprocess.DEVNULL)


def measure_help(folder: Path) -> Comparison:
    """Compare `reconciler --help` with the help of an empty click program."""
    empty = folder / "empty.py"
    empty.write_text("import click\n@click.command()\ndef main():\n    pass\nmain()\n")
    return compare(
        "reconciler --help against an empty click program",
        {
            "reconciler": partial(run_process, "-m", "reconciler", "--help"),
            "empty": partial(run_process, str(empty), "--help"),
        },
        bound=2,
        rounds=15,
    )


def measure_validation(config: Path) -> Comparison:
    """Compare the compiled schema validator with the one that explains."""
    schema = json.loads(read_resource("schemas", "jobs.schema.json"))
    document = yaml.load(next((config.parent / "jobs.d").iterdir()).read_text(), Loader=yaml.CSafeLoader)
    quick = jsonschema_rs.validator_for(schema)
    slow = jsonschema.Draft202012Validator(schema)
    return compare(
        f"JSON Schema, {JOBS_PER_FILE} jobs: jsonschema-rs against jsonschema",
        {"jsonschema-rs": partial(quick.is_valid, document), "jsonschema": partial(slow.is_valid, document)},
        rounds=5,
    )


def measure_plan_and_apply(folder: Path, dsn: str) -> list[Comparison]:
    """Compare plan and apply with their floors, and plan with octoDNS."""
    config = write_jobs(folder / "jobs", files=FILES, jobs_per_file=JOBS_PER_FILE)
    records = write_records(folder / "records", files=FILES, records_per_file=JOBS_PER_FILE)
    request = read_request(config)
    count = len(request.specs)
    applied = compare(
        f"apply {count} creations against the same cron.schedule calls in one transaction",
        {
            "apply": partial(apply_and_forget, request, dsn),
            "in one statement": partial(schedule_and_forget, request, dsn, how="statement"),
            "in a pipeline": partial(schedule_and_forget, request, dsn, how="pipeline"),
            "one by one": partial(schedule_and_forget, request, dsn, how="calls"),
        },
        bound=1.5,
        rounds=3,
    )
    apply_and_forget(request, dsn)
    planned = compare(
        f"plan of {count} jobs in {FILES} files with nothing to do against libyaml and one SELECT",
        {
            "plan": partial(plan_everything, config, dsn),
            "yaml.CSafeLoader + SELECT": partial(parse_and_select, config, dsn, loader=yaml.CSafeLoader),
            "bare libyaml events + SELECT": partial(parse_and_select, config, dsn, loader=None),
        },
        bound=1.5,
    )
    octodns = compare(
        f"plan of {count} jobs against octoDNS's plan of {count} records, both from {FILES} files",
        {"reconciler": partial(plan_everything, config, dsn), "octoDNS": partial(plan_records, records)},
        rounds=2,
    )
    return [planned, applied, octodns, measure_validation(config)]


def main() -> None:
    """Run everything and print one line each."""
    logging.disable(logging.CRITICAL)
    directory = Path(".reconciler/bench")
    server = start_local_server(directory)
    try:
        with tempfile.TemporaryDirectory() as folder:
            comparisons = measure_plan_and_apply(Path(folder), server.dsn)
            comparisons.append(measure_help(Path(folder)))
    finally:
        stop_local_server(directory, purge=True)
    print(f"PostgreSQL {server.major}, Python {sys.version.split()[0]}, {os.cpu_count()} cores\n")
    for comparison in comparisons:
        print(comparison.render())


if __name__ == "__main__":
    main()
