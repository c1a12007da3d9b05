"""A whole life on real servers: from entries made by hand to the last deletion, by the command line alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from tests.declared import Site
from tests.http_server import serve
from tests.integration.test_forges import ForgeServer, Handler, environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.conftest import Cli, CliResult
    from tests.servers import Database

CONFIG = """\
owner: shop
targets:
  production: {dsn: "${env:DATABASE_URL}", prune: confirm, grace: 7d, runtime: false}
"""
BY_HAND: LiteralString = """
SELECT cron.schedule('tidy', '0 3 29 2 *', 'DELETE FROM carts WHERE old');
SELECT cron.schedule('report', '0 4 29 2 *', 'REFRESH MATERIALIZED VIEW sales');
SELECT cron.schedule('old', '0 5 29 2 *', 'SELECT 1');
"""
ENTRIES: LiteralString = "SELECT to_jsonb(j) FROM cron.job j ORDER BY jobid"
LAPSE: LiteralString = (
    "UPDATE reconciler.definitions SET retired_until = now() WHERE retired_until IS NOT NULL"
)


class Shop:
    """A repository with its target.

    Attributes:
        cli: The command line, in the repository.
        site: The target.
    """

    def __init__(self, cli: Cli, site: Site) -> None:
        self.cli = cli
        self.site = site
        (cli.directory / "reconciler.yaml").write_text(CONFIG)
        (cli.directory / "jobs.d").mkdir()

    @property
    def file(self) -> Path:
        """The file that the import makes, and people edit."""
        return self.cli.directory / "jobs.d" / "imported.yaml"

    def __call__(self, *args: str, code: int = 0, env: Mapping[str, str] | None = None) -> CliResult:
        """Run a command to its end."""
        result = self.cli(*args, env={"DATABASE_URL": self.site.dsn, **(env or {})})
        assert result.exit_code == code, (args, result)
        return result

    def edit(self, old: str, new: str) -> None:
        """Edit the file."""
        text = self.file.read_text()
        assert text.count(old) == 1, text
        self.file.write_text(text.replace(old, new))

    def leave_out(self, name: str) -> str:
        """Take a job out of the file, and return its text."""
        head, _, rest = self.file.read_text().partition(f"\n  {name}:")
        assert rest
        lines = rest.splitlines(keepends=True)
        end = next((at for at, line in enumerate(lines[1:], 1) if not line.startswith("    ")), len(lines))
        self.file.write_text(head + "\n" + "".join(lines[end:]))
        return f"  {name}:" + "".join(lines[:end])

    def entries(self) -> list[dict[str, Any]]:
        """Return all rows of cron.job."""
        return [entry for (entry,) in self.site.rows(ENTRIES)]


@pytest.fixture
def shop(cli: Cli, database: Database) -> Shop:
    """A live database whose jobs people made by hand, and an empty repository."""
    site = Site(database)
    site.run(BY_HAND)
    return Shop(cli, site)


def test_a_whole_life(shop: Shop) -> None:
    """Adopted, changed after a review, drifted and mended, rolled back, retired, restored, and deleted."""
    by_hand = shop.entries()
    jobids = {entry["jobname"]: entry["jobid"] for entry in by_hand}

    # Adopt the live database: nothing of it changes.
    shop("import")
    assert "Nothing to change" in shop("plan", "--exit-code").stdout
    assert "Applied as revision 1." in shop("apply", "--yes").stdout
    assert shop.entries() == by_hand

    # Open a change, have it planned and commented.
    shop.edit("0 3 29 2 *", "30 3 29 2 *")
    with serve(Handler, lambda port: ForgeServer(forge="github", port=port), lambda _: None) as forge:
        shown = shop("plan", "--format", "json", "--out", "plan.json", "--exit-code", code=3).stdout
        (shop.cli.directory / "shown.json").write_text(shown)
        shop("comment", "--plan", "shown.json", env=environment(forge))
        [comment] = forge.comments
    assert "0 3 29 2 *" in comment["body"]
    assert "30 3 29 2 *" in comment["body"]
    assert shop.entries() == by_hand

    # Merge: the very plan that was reviewed is applied, once, and is stale from then on.
    shop("apply", "plan.json", "--yes", env={"GITHUB_ACTOR": "anna", "GITHUB_SHA": "c0ffee"})
    assert shop.site.entry("tidy")["schedule"] == "30 3 29 2 *"
    shop("apply", "plan.json", "--yes", code=5)
    assert "anna" in shop("blame", "tidy").stdout

    # Drift by hand is told, and mended.
    shop("drift", "--exit-code")
    shop.site.run(
        "SELECT cron.alter_job(jobid, schedule := '9 9 29 2 *') FROM cron.job WHERE jobname = 'tidy'"
    )
    shop.site.run("SELECT cron.unschedule('old')")
    told = shop("drift", "--exit-code", code=7).stdout
    assert 'entry.schedule: "9 9 29 2 *" → "30 3 29 2 *"' in told
    assert "job old" in told
    shop("apply", "--yes")
    shop("drift", "--exit-code")
    assert shop.site.entry("tidy")["jobid"] == jobids["tidy"]
    jobids["old"] = shop.site.entry("old")["jobid"]

    # Roll back to what was adopted; the file is put back too.
    shop("rollback", "1", "--yes")
    assert shop.site.entry("tidy")["schedule"] == "0 3 29 2 *"
    shop.edit("30 3 29 2 *", "0 3 29 2 *")
    assert "Nothing to change" in shop("plan", "--exit-code").stdout

    # Removed from the files, a job stands still for its grace, after consent to the very list.
    text = shop.leave_out("old")
    code = json.loads(shop("plan", "--format", "json").stdout)["consent"]
    assert code in shop("apply", "--yes", code=4).stderr
    shop("apply", "--yes", "--allow-deletes", code)
    old = shop.site.entry("old")
    assert (old["jobid"], old["active"]) == (jobids["old"], False)
    assert "retired until" in shop("status").stdout
    assert "Nothing to change" in shop("plan", "--exit-code").stdout

    # Restored, it goes on where it was; the files decide again until it is put back there.
    shop("restore", "old", "--yes")
    old = shop.site.entry("old")
    assert (old["jobid"], old["active"], old["command"]) == (jobids["old"], True, "SELECT 1")
    shop.file.write_text(shop.file.read_text() + text)
    assert "Nothing to change" in shop("plan", "--exit-code").stdout

    # Removed for good: retired, and after its grace deleted without another question.
    shop.leave_out("old")
    shop("apply", "--yes", "--allow-deletes", "1")
    shop.site.run(LAPSE)
    assert "- job old" in shop("plan").stdout
    shop("apply", "--yes")
    assert [(entry["jobname"], entry["jobid"]) for entry in shop.entries()] == [
        (name, jobids[name]) for name in ("tidy", "report")
    ]
    actions = [json.loads(line.rstrip(",\n"))["counts"] for line in _list_history(shop)]
    assert len(actions) == 8
    assert "Nothing to change" in shop("plan", "--exit-code").stdout


def _list_history(shop: Shop) -> list[str]:
    lines = shop("history", "--json").stdout.splitlines()
    return [line for line in lines if line.strip() not in {"[", "]"}]
