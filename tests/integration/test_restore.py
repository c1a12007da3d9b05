"""`restore`: what the files no longer declare comes back by name; and how retired things are shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reconciler.cli.main import main
from tests.declared import job

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.declared import Site

pytestmark = pytest.mark.one_server

A = "  a: {schedule: 0 0 29 2 *, sql: SELECT 1}\n"
B = "  b: {schedule: 1 0 29 2 *, sql: SELECT 2}\n"


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], site: Site
) -> Callable[..., str]:
    """Run a command in this process as its users do, and return what it prints; `jobs` is the file."""
    (tmp_path / "jobs.d").mkdir()
    policy = "prune: auto, grace: 7d, runtime: false"
    (tmp_path / "reconciler.yaml").write_text(
        f"owner: shop\ntargets:\n  test: {{dsn: {json.dumps(site.dsn)}, {policy}}}\n"
    )
    monkeypatch.chdir(tmp_path)

    def call(*args: str, jobs: str | None = None, code: int = 0) -> str:
        if jobs is not None:
            (tmp_path / "jobs.d" / "shop.yaml").write_text(f"jobs:\n{jobs}")
        with pytest.raises(SystemExit) as ended:
            main(args)
        printed = capsys.readouterr()
        assert ended.value.code == code, printed.err
        return printed.err if code else printed.out

    return call


def test_a_retired_job_is_restored_by_its_name(run: Callable[..., str], site: Site) -> None:
    """Retired with a plan that says so, restored with its jobid, and taken away again by the next apply."""
    run("apply", "--yes", jobs=A + B)
    jobid = site.entry("b")["jobid"]
    shown = run("plan", jobs=A)
    assert "| job b  (removed, jobs.d/shop.yaml:3)" in shown
    assert "      it stands still for 1w, and is deleted then\n" in shown
    run("apply", "--yes")
    shown = run("plan")
    assert "Note [in_grace]: no longer declared, these stand still, in grace until 20" in shown
    assert "Nothing to change: 1 resources are as declared." in shown
    shown = run("restore", "b", "--dry-run")
    assert "~ job b  (restored, jobs.d/shop.yaml:3)" in shown
    assert "Note [restore]: the files do not declare these" in shown
    assert "in_grace" not in shown
    assert site.entry("b")["active"] is False
    assert "Applied as revision 3." in run("restore", "b", "--yes")
    assert (site.entry("b")["jobid"], site.entry("b")["active"]) == (jobid, True)
    assert "~1 (restore)" in run("history")
    assert "  restored  b\n" in run("history", "show", "3")
    run("apply", "--yes")
    assert site.entry("b")["active"] is False
    (change,) = json.loads(run("plan", "--format", "json", jobs=A + B))["changes"]
    assert (change["action"], change["reason"], change["retired_until"][-1]) == ("update", "restored", "Z")


def test_what_is_gone_comes_back_as_it_was_last(run: Callable[..., str], site: Site) -> None:
    """After its grace it is made anew of the revisions; drift of others is left alone."""
    run("apply", "--yes", jobs=A + B)
    run("apply", "--yes", jobs=A + B.replace("SELECT 2", "SELECT 3"))
    run("apply", "--yes", jobs=A)
    site.run("UPDATE reconciler.definitions SET retired_until = now() WHERE name = 'b'")
    shown = run("apply", "--yes")
    assert "- job b  (removed" in shown
    assert "      its grace ended at 20" in shown
    site.run("SELECT cron.alter_job(jobid, active := false) FROM cron.job WHERE jobname = 'a'")
    assert "+ job b  (declared" in run("restore", "b", "--yes")
    assert site.entry("a")["active"] is False
    assert site.rows("SELECT spec ->> 'sql', retired_at FROM reconciler.definitions WHERE name = 'b'") == [
        ("SELECT 3", None)
    ]


def test_what_cannot_come_back_is_refused(run: Callable[..., str], site: Site) -> None:
    """What the files declare, what is another owner's and what is unknown; and nothing is changed."""
    site.apply(job("stove"), owner="kitchen")
    run("apply", "--yes", jobs=A)
    before = site.everything()
    for name, why in (
        ("a", "jobs.d/shop.yaml:2:3 declares a\n  nothing was changed; apply brings it back"),
        ("stove", "nothing was changed: stove belongs to the owner kitchen"),
        ("b", "nothing was changed: nothing called 'b' was taken away from this target"),
    ):
        assert why in run("restore", name, "--yes", code=4)
    assert site.everything() == before


def test_a_rollback_brings_back_from_grace(run: Callable[..., str], site: Site) -> None:
    """What stands still goes on where it was, also where it had another name then."""
    run("apply", "--yes", jobs=A + B)
    jobid = site.entry("b")["jobid"]
    run("apply", "--yes", jobs=A + B.replace("  b: {", "  c: {renamed_from: b, "))
    run("apply", "--yes", jobs=A)
    assert "~ job b  (renamed" in run("rollback", "1", "--yes")
    assert (site.entry("b")["jobid"], site.entry("b")["active"]) == (jobid, True)
    assert site.rows("SELECT count(*) FROM reconciler.definitions WHERE retired_at IS NOT NULL") == [(0,)]
    run("apply", "--yes")
    assert "~ job b  (restored" in run("rollback", "1", "--dry-run")
    assert "| job b  (removed" in run("blame", "b")


def test_a_retired_job_is_shown_as_retired(run: Callable[..., str], site: Site) -> None:
    """In status with its date, never as failing, not in next; explain says how to get it back."""
    run("apply", "--yes", jobs=A + B)
    site.run(
        "INSERT INTO reconciler.job_states (name, consecutive_failures) VALUES ('b', 3)"
        " ON CONFLICT (name) DO UPDATE SET consecutive_failures = 3"
    )
    run("apply", "--yes", jobs=A)
    shown = run("status")
    assert "retired until 20" in shown
    assert "0 failing" in shown
    (job,) = json.loads(run("status", "b", "--json"))
    assert (job["state"], job["next_run_at"], job["retired_until"][:2]) == ("retired", None, "20")
    assert {one["name"] for one in json.loads(run("next", "--json", "--count", "9"))} == {"a"}
    refused = run("explain", "b", "--target", "test", code=1)
    assert "b is no longer declared and runs no more: it is retired until" in refused
    assert site.rows(
        "SELECT active, next_run_time, lateness, retired_until > now() FROM reconciler.cron_job_health"
        " WHERE name = 'b'"
    ) == [(False, None, None, True)]


def test_an_entry_that_nobody_declared_comes_back_as_a_direct_job(
    run: Callable[..., str], site: Site
) -> None:
    """What an authoritative target deleted is made again as it stood in cron.job."""
    site.run("SELECT cron.schedule('wild', '0 0 29 2 *', 'SELECT 7')")
    config = Path("reconciler.yaml")
    config.write_text(config.read_text().replace("prune: auto", "prune: confirm, stage: authoritative"))
    run("apply", "--yes", "--allow-deletes", "1", jobs=A)
    assert site.rows("SELECT jobname FROM cron.job") == [("a",)]
    assert "+ job wild  (declared" in run("restore", "wild", "--yes")
    entry = site.entry("wild")
    assert (entry["schedule"], entry["command"], entry["active"]) == ("0 0 29 2 *", "SELECT 7", True)


def test_a_script_retires_and_restores_as_apply_does(run: Callable[..., str], site: Site) -> None:
    """The SQL of a plan is what an apply executes, and the target is the same afterwards."""
    run("apply", "--yes", jobs=A + B)
    site.run(run("plan", "--format", "sql", jobs=A).encode())  # type: ignore[arg-type]
    assert site.entry("b")["active"] is False
    assert "Nothing to change" in run("plan")
    site.run(run("restore", "b", "--dry-run", "--format", "sql").encode())  # type: ignore[arg-type]
    assert site.entry("b")["active"] is True
    assert site.rows("SELECT summary ->> 'restored' FROM reconciler.revisions ORDER BY id") == [
        (None,),
        (None,),
        ('["b"]',),
    ]
