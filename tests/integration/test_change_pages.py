"""The pages of what was applied, what drifts, and what somebody has to hear of."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from reconciler.runtime.spec_files import WatchedSpecFiles
from tests.declared import channel, job
from tests.pages import Browser
from tests.runs import call
from tests.served import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.declared import Site
    from tests.served import Served

pytestmark = pytest.mark.one_server

HOSTILE = "<script>alert(1)</script>"
SPECS = """\
jobs:
  orders:
    schedule: "0 1 * * *"
    sql: |
      SELECT 1;
      SELECT 2;
  mail: {schedule: "0 2 * * *", sql: SELECT 2}
"""


@pytest.fixture
def folder(tmp_path: Path, site: Site) -> Path:
    """A project of the target, of which nothing was applied yet."""
    (tmp_path / "reconciler.yaml").write_text(f'owner: shop\ntargets: {{test: {{dsn: "{site.dsn}"}}}}\n')
    (tmp_path / "jobs.d").mkdir()
    (tmp_path / "jobs.d" / "shop.yaml").write_text(SPECS)
    return tmp_path


@pytest.fixture
def with_files(site: Site, folder: Path) -> Iterator[Served]:
    """A service that knows the files."""
    files = WatchedSpecFiles(folder / "reconciler.yaml", environment=os.environ)
    with serve(site, files=files) as served:
        yield served


def test_revisions_are_listed_and_shown_line_by_line(site: Site) -> None:
    """The list names what was done; a revision shows a long text with the lines that went and came."""
    site.apply(job("a", f"SELECT '{HOSTILE}';\nSELECT 2;\n"), job("b"))
    site.apply(job("a", f"SELECT '{HOSTILE}';\nSELECT 3;\n"), job("b"))
    with serve(site) as served:
        reader = Browser(served, "read")
        rows = list(reader.look("/revisions").find("tbody").find_all("tr"))
        assert ["update a" in rows[0].text, "create a, b" in rows[1].text] == [True, True]
        assert ["anna" in rows[1].text, "c0ffee" in rows[1].text] == [True, True]
        page = reader.look("/revisions/2")
        diff = page.find(class_="diff")
        assert [diff.find("del").text, diff.find("ins").text] == ["- SELECT 2;", "+ SELECT 3;"]
        assert HOSTILE in page.text
        for missing in ("/revisions/99", "/revisions/x", "/revisions/99999999999999999999", "/revisions/-1"):
            reader.look(missing, 404)


def test_revisions_go_on_where_a_page_ended(site: Site) -> None:
    """The link to the next page leads to older ones."""
    for number in range(3):
        site.apply(job("a", f"SELECT {number}"))
    with serve(site) as served:
        reader = Browser(served, "read")
        page = reader.look("/revisions?cursor=WzJd")
        assert [row.find(class_="name").text for row in page.find("tbody").find_all("tr")] == ["1"]
        reader.look("/revisions?cursor=nonsense", 422)


def test_drift_is_told_apart_from_what_the_files_ask_for(with_files: Served, site: Site) -> None:
    """What was applied and changed by hand is drift; what nobody applied yet stands below."""
    files = with_files.service.files
    assert files is not None
    site.apply(*[spec for spec in files.load()[2] if spec.name == "orders"])
    site.run("UPDATE cron.job SET schedule = '5 5 * * *' WHERE jobname = 'orders'")
    page = Browser(with_files, "read").look("/drift")
    assert page.find(id="drift-job-orders").find("del").text == '- entry.schedule: "5 5 * * *"'
    assert "create" in page.find(id="plan-job-mail").text
    with pytest.raises(AssertionError, match="no "):
        page.find(id="plan-job-orders")


def test_drift_without_files_says_what_is_missing(site: Site) -> None:
    """It is no error: the service can be started without them."""
    with serve(site) as served:
        assert "knows no spec files" in Browser(served, "read").look("/drift").text


def test_drift_with_broken_files_lists_each_problem(with_files: Served, folder: Path) -> None:
    """With its place, and with nothing of it taken for HTML."""
    (folder / "jobs.d" / "shop.yaml").write_text(f'jobs:\n  orders: {{sql: SELECT 1, "{HOSTILE}": 1}}\n')
    page = Browser(with_files, "read").look("/drift")
    assert "shop.yaml:2" in page.text
    assert HOSTILE in page.text


def test_alerts_are_listed_with_who_was_told(site: Site) -> None:
    """Open ones first asked for; of one job where that is wanted."""
    site.apply(
        channel("ops"),
        job("bad", "SELECT 1/0", alert={"channels": ["ops"], "after": 1}),
        job("worse", f"SELECT '{HOSTILE}'::integer", alert={"channels": ["ops"], "after": 1}),
    )
    call(site, "bad")
    call(site, "worse")
    with serve(site) as served:
        reader = Browser(served, "read")
        page = reader.look("/alerts")
        assert "ops: pending" in page.text
        assert HOSTILE in page.text
        rows = list(reader.look("/alerts?job=bad&state=all").find("tbody").find_all("tr"))
        assert [row.find(class_="name").text for row in rows] == ["bad"]
        assert "There was no alert yet" in reader.look("/alerts?job=none&state=all").text
        reader.look("/alerts?cursor=nonsense", 422)
