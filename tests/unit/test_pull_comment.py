"""The comment on a pull request: what it shows, what it can never be made to do, and how long it gets."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import plan_documents
from reconciler.core.config import Policy
from reconciler.core.markdown import fence, fold, measure, prose, reveal, shorten, span
from reconciler.core.plan import make_fingerprints, make_plan
from reconciler.core.pull_comment import LIMIT, Subject, make_marker, render_comment, render_failure
from tests.core_builders import (
    make_definition,
    make_desired_state,
    make_document,
    make_entry,
    make_observed,
    make_scheduled,
)

RUN = "https://github.com/acme/crons/actions/runs/7"
SUBJECT = Subject(target="production", commit="0123abc", run_url=RUN)


def make_plan_value(**changed: Any) -> dict[str, Any]:
    """Make the JSON of a plan that creates a, changes b and deletes old."""
    old_sql, new_sql = "SELECT 1\nFROM x\n", "SELECT 1\nFROM y\n"
    b, old = make_entry("b", 1), make_entry("old", 2)
    desired = make_desired_state(
        make_scheduled("a", document=make_document(schedule="0 * * * *", sql=old_sql)),
        make_scheduled(
            "b", schedule="5 * * * *", document=make_document(schedule="5 * * * *", sql=new_sql, timeout=5)
        ),
    )
    observed = make_observed(
        make_definition("b", entry=b, document=make_document(schedule="0 * * * *", sql=old_sql)),
        make_definition("old", entry=old),
        entries=(b, old),
    )
    plan = make_plan(desired, observed, target="production", policy=Policy(prune="auto"))
    text = plan_documents.render_plan(plan, make_fingerprints(desired, observed))
    return {**json.loads(text), **changed}


def make_change(name: str = "a", action: str = "delete", **changed: Any) -> dict[str, Any]:
    """Make the JSON of one change."""
    change: dict[str, Any] = {
        "action": action,
        "kind": "job",
        "name": name,
        "reason": "removed",
        "source": "jobs.d/a.yaml:3",
        "renamed_from": None,
        "before": {"spec": {"sql": "SELECT 1"}, "entry": None},
        "after": None,
        "fields": [],
        "obstacle": None,
    }
    return {**change, **changed}


def render(*changes: dict[str, Any], **changed: Any) -> str:
    """Render a plan of these changes."""
    return render_comment(make_plan_value(changes=list(changes), **changed), SUBJECT)


def test_a_plan_is_shown_with_its_diffs() -> None:
    """What is taken away stands first; fields stand open, SQL is folded and compared line by line."""
    text = render_comment(make_plan_value(), SUBJECT)
    lines = text.splitlines()
    assert lines[0] == "<!-- reconciler plan production/ -->"
    assert lines[2] == "### Plan for `production`, owner `shop`"
    assert "**1 to create, 1 to update, 1 to delete.**" in lines
    assert "> **Deletes 1:** `old`" in lines
    heads = [line for line in lines if re.match(r"\*\*(create|update|delete)\*\*", line)]
    assert heads == [
        "**delete** job `old` (removed, `jobs.d/a.yaml:3`)",
        "**update** job `b` (edited, `jobs.d/a.yaml:3`)",
        "**create** job `a` (declared, `jobs.d/a.yaml:3`)",
    ]
    assert '- spec.schedule: "0 * * * *"\n+ spec.schedule: "5 * * * *"\n+ spec.timeout: 5\n' in text
    assert (
        "<details><summary><code>spec.sql</code> 1 line added, 1 removed</summary>\n\n"
        "```diff\n@@ -1,2 +1,2 @@\n  SELECT 1\n- FROM x\n+ FROM y\n```\n\n</details>"
    ) in text
    assert "<code>sql</code> 2 lines</summary>\n\n```diff\n+ SELECT 1\n+ FROM x\n```" in text
    assert lines[-1] == f"<sub>reconciler `0.1.0` · commit `0123abc` · [the run]({RUN})</sub>"


def test_nothing_to_change() -> None:
    """An empty plan says so, and how many were looked at; adoptions do not count."""
    text = render_comment(make_plan_value(changes=[], empty=True), SUBJECT)
    assert "**Nothing to change:** 2 resources are as declared.\n" in text
    adopting = render(make_change("a", "adopt"), empty=True)
    assert "as declared. 1 of them will be marked as ours." in adopting
    assert "**adopt** job `a` (removed, `jobs.d/a.yaml:3`)\n\n<sub>" in adopting


def test_what_hinders_stands_at_the_top_and_at_the_change() -> None:
    """Refused changes are counted first and explained where they are; rights are the planning role's."""
    obstacle = {"kind": "refused", "why": "another owner", "remedy": "ask them"}
    rights = {"kind": "rights", "why": "no superuser", "remedy": "GRANT it"}
    text = render(make_change("a", obstacle=obstacle), make_change("b", obstacle=rights))
    assert "> **Cannot be applied:** 1 refused, and nothing is applied until that is mended." in text
    assert "> The role that planned could not make 1 of these; one that only reads never" in text
    assert "superuser" not in text
    assert "> **Cannot be done:** another owner  \n> To do: ask them" in text
    assert text.index("Cannot be applied") < text.index("**delete**")


def test_dangers_notes_migrations_and_kept_names_are_shown() -> None:
    """What a reviewer has to know beside the changes; of many the first ten, and how many more."""
    finding = {"code": "no_launcher", "severity": "error", "message": "it is off", "remedy": "switch it on"}
    notice = {"code": "settled", "message": "these ran", "names": ["x", "y"]}
    text = render(
        findings=[finding, {**finding, "severity": "warning"}],
        notices=[notice, {**notice, "names": []}],
        migrations=["0001_begin"],
        kept=["old"],
    )
    assert "> **Danger** `no_launcher`: it is off  \n> To do: switch it on" in text
    assert "> **Warning** `no_launcher`:" in text
    assert "> **Note** `settled`: these ran  \n> `x`, `y`" in text
    assert "> **Note** `settled`: these ran\n" in text
    assert "Migrations to run first: `0001_begin`" in text
    assert "Kept, though no longer declared (`prune: never`): `old`" in text
    many = render(findings=[finding] * 12, notices=[notice] * 13)
    assert (many.count("**Danger**"), many.count("**Note**")) == (10, 10)
    assert "> **2 more dangers and warnings**" in many
    assert "> **3 more notes**" in many


def test_a_renamed_job_names_its_old_name() -> None:
    """The name that it had stands beside the new one."""
    text = render(make_change("b", "update", renamed_from="a", after=None))
    assert "**update** job `b`, renamed from `a` (" in text


def test_entries_show_what_the_spec_does_not_say() -> None:
    """The entry of a direct job does not repeat its SQL; an inactive one says so."""
    entry = {"name": "a", "schedule": "* * * * *", "command": "VACUUM x", "username": "u", "active": False}
    after = {"spec": {"sql": "VACUUM x", "daily": "02:30"}, "entry": entry}
    text = render(make_change("a", "create", before=None, after=after))
    assert text.count("VACUUM x") == 1
    assert '+ entry.schedule: "* * * * *"' in text
    assert "+ entry.active: false" in text
    assert "entry.name" not in text


def make_view(words: str = "every day at 08:00", **changed: Any) -> dict[str, Any]:
    """Make the JSON of one side of a change in time."""
    runs = ["2026-12-01T07:00:00Z", "2026-12-02T07:00:00Z"]
    view = {"words": words, "zone": "Europe/Oslo", "active": True, "next_runs": runs, "per_day": 1.0}
    return {**view, "woken_per_day": None, **changed}


def make_times(before: Any = None, after: Any = None, **changed: Any) -> dict[str, Any]:
    """Make the JSON of what a change does in time."""
    rest: dict[str, Any] = {
        "same_times": False,
        "last_run": None,
        "skipped": [],
        "doubled": [],
        "running": [],
        "fate": None,
    }
    return {"before": before, "after": after, **rest, **changed}


@pytest.mark.parametrize(
    ("times", "shown"),
    [
        (make_times(), []),
        (
            make_times(None, make_view()),
            [
                "Runs every day at `08:00` in `Europe/Oslo`  ",
                "Next `2026-12-01T07:00:00Z`, `2026-12-02T07:00:00Z`",
            ],
        ),
        (make_times(make_view(), None), ["Runs every day at `08:00` in `Europe/Oslo` → no more"]),
        (
            make_times(make_view(), make_view("every hour", per_day=24, active=False, next_runs=[])),
            [
                "Runs every day at `08:00` in `Europe/Oslo` → every hour in `Europe/Oslo`, inactive  ",
                "On a usual day 1 times → 24 times",
            ],
        ),
        (
            make_times(make_view(), make_view(), same_times=True),
            ["Runs every day at `08:00` in `Europe/Oslo`, the same times as before"],
        ),
        (
            make_times(last_run="L", doubled=["D"], skipped=["S", "T"]),
            [
                "> **Would run again** at `D`; it was due last at `L`  ",
                "> **Would be left out:** `S`, `T`; it was due last at `L`",
            ],
        ),
        (
            make_times(running=[{"run": 8, "since": "S"}], fate="goes on @all"),
            ["> **Running now:** run 8, since `S`; goes on `@all`"],
        ),
        (make_times(running=[{"run": 8, "since": "S"}]), ["> **Running now:** run 8, since `S`"]),
    ],
)
def test_what_a_change_does_in_time(times: dict[str, Any], shown: list[str]) -> None:
    """When it runs, before and after; and the runs that come twice, are left out or go on."""
    lines = render(make_change("a", "update", times=times)).splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("**update**"))
    foot = next(number for number, line in enumerate(lines) if line.startswith("<sub>"))
    assert [line for line in lines[head + 1 : foot] if line] == shown


def test_many_fields_are_folded() -> None:
    """More than eight lines open with a click."""
    fields = [{"path": f"spec.x{number}", "before": 1, "after": 2} for number in range(5)]
    text = render(make_change("a", "update", fields=fields))
    assert "<details><summary><code>fields</code> 10 lines</summary>" in text
    assert "<details>" not in render(make_change("a", "update", fields=fields[:4]))


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("a\nb", None, "2 lines</summary>\n\n```diff\n- a\n- b\n```"),
        (None, "a\nb\n", "2 lines</summary>\n\n```diff\n+ a\n+ b\n```"),
        ({"x": 1}, "a\nb", '2 lines added, 1 removed</summary>\n\n```diff\n@@ -1 +1,2 @@\n- {"x": 1}\n'),
        ("a\nb", "a\nb\n", "  only the line feed at the end differs"),
        ("a\nb", "a\r\nb", "- a\n+ a<U+000D>\n  b"),
        ("a\n" * 3000, "b\n" * 3000, "3000 lines before, 3000 after</summary>\n\n```diff\n  too long to"),
    ],
)
def test_texts_are_compared_line_by_line(before: Any, after: Any, shown: str) -> None:
    """Also where there is a text on one side only, and where nothing that can be seen differs."""
    field = {"path": "spec.sql", "before": before, "after": after}
    assert shown in render(make_change("a", "update", fields=[field]))


def test_long_texts_and_lines_are_cut_and_said_to_be() -> None:
    """Of a text 150 lines are shown, of a line 400 characters; a change has at most 16,000."""
    text = render(
        make_change("a", "create", before=None, after={"spec": {"sql": "x\n" * 200}, "entry": None})
    )
    assert "… 50 more lines" in text
    assert text.count("\n+ x") == 150
    field = {"path": "spec.x", "before": 1, "after": "y" * 1000}
    assert "y… (" in render(make_change("a", "update", fields=[field]))
    huge = {"path": "spec.sql", "before": None, "after": ("z" * 300 + "\n") * 100}
    assert "The difference is too long for a comment." in render(make_change("a", "update", fields=[huge]))


def test_the_limit_holds_and_deletions_stay() -> None:
    """10,000 changes fit: first with their diffs, then without, then counted; deletions are all named."""
    sql = "SELECT '🐘' FROM x;\n" * 40
    created = [
        make_change(f"new-{number}", "create", before=None, after={"spec": {"sql": sql}, "entry": None})
        for number in range(10_000)
    ]
    text = render(*created, make_change("precious"))
    assert measure(text) <= LIMIT
    assert len(text.encode("utf-16-le")) // 2 == measure(text)
    assert "> **Deletes 1:** `precious`" in text
    assert text.index("**delete** job `precious`") < text.index("**create** job `new-0`")
    more = re.search(r"\*\*(\d+) more changes\*\*: see the artifact of \[the run\]", text)
    assert more is not None
    shown = text.count("**create** job")
    assert shown + int(more[1]) == 10_000
    assert 40 < shown < 1000
    assert text.count("<details>") < shown


def test_many_deletions_are_counted() -> None:
    """Fifty names, and how many more."""
    text = render(*(make_change(f"job-{number}") for number in range(60)))
    assert "> **Deletes 60:** `job-0`, " in text
    assert "`job-49` and 10 more\n" in text


def test_without_a_sound_address_there_is_no_link() -> None:
    """An address that is none, or holds what Markdown reads, is left out."""
    for url in ("", "javascript:alert(1)", "https://x.example/a)[b](c", "https://x.example/a b"):
        subject = Subject(target="t", run_url=url)
        text = render_comment(make_plan_value(changes=[make_change(str(n)) for n in range(5000)]), subject)
        assert "](" not in text
        assert "more changes**: see the artifact of the run, or `reconciler plan`." in text


def test_a_failure_replaces_what_was_planned_before() -> None:
    """The comment says that what it showed holds no longer, for which commit, and where to look."""
    text = render_failure(SUBJECT)
    assert text.startswith(make_marker("production") + "\n")
    assert "**There is no plan for `0123abc`: planning failed.** What was shown here before" in text
    assert f"<sub>reconciler · commit `0123abc` · [the run]({RUN})</sub>" in text
    assert "**There is no plan: planning failed.**" in render_failure(Subject(target="t"))


def test_each_target_and_scope_has_a_marker_of_its_own() -> None:
    """No name can end the marker's HTML comment, pose as another's, or be the beginning of another's."""
    names = ["a", "a-", "ab", "a/b", "a%2f;b", "", "-->", "A", "é", "a b"]
    markers = [make_marker(target, scope) for target in names for scope in names]
    assert len(set(markers)) == len(markers)
    for marker in markers:
        assert marker.startswith("<!-- reconciler plan ")
        assert marker.index("-->") == len(marker) - 3
        assert not any(other != marker and other.startswith(marker) for other in markers)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "`plain`"),
        ("a|b @x <!-- [l](u)", "`a|b @x <!-- [l](u)`"),
        ("one\r\n\r\ntwo\tthree", "`one<U+000D> <U+000D> two three`"),
        ("a`b", "``a`b``"),
        ("`a``b", "``` `a``b ```"),
        ("zero\u200bwidth\u202e\ud800\u00a0\ufe0f", "`zero<U+200B>width<U+202E><U+D800><U+00A0><U+FE0F>`"),
        (" \n ", "(none)"),
        ("", "(none)"),
    ],
)
def test_a_span_holds_anything(text: str, shown: str) -> None:
    """Whatever stands in a text, its code span is one line and ends where the text ends."""
    assert span(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("paused until then, by nobody: why (not)?", "paused until then, by nobody: why (not)?"),
        ("ask @octocat now", "ask `@octocat` now"),
        ("see #12 and a.b/c or", "see `#12` and `a.b/c` or"),
        ("a **b** _c_ d", "a `**b** _c_` d"),
        ("open www. now", "open `www.` now"),
        ("open (WWW. now", "open `(WWW.` now"),
        ("it's `x` of 12 jobs, not 1234567", "it's `` `x` `` of 12 jobs, not `1234567`"),
        ("", "(none)"),
    ],
)
def test_prose_leaves_plain_words_alone(text: str, shown: str) -> None:
    """Sentences stay readable, and everything that anybody might read otherwise is code."""
    assert prose(text) == shown


def test_fences_are_longer_than_what_they_hold() -> None:
    """A run of backticks in a text cannot close its block."""
    assert fence(["+ x"]) == "```diff\n+ x\n```"
    assert fence(["+ ````"], language="") == "`````\n+ ````\n`````"


def test_a_fold_escapes_its_title() -> None:
    """A title is HTML: what it holds stays text, on one line."""
    assert fold("a</code>\n\n<b>&", "2 lines", "x") == (
        "<details><summary><code>a&lt;/code&gt; &lt;b&gt;&amp;</code> 2 lines</summary>\n\nx\n\n</details>"
    )


def test_texts_are_measured_and_shortened() -> None:
    """Characters beyond the basic plane count twice; a cut says how much is gone."""
    assert (measure("ab"), measure("a🐘")) == (2, 3)
    assert (shorten("abc", 3), shorten("abcd", 3)) == ("abc", "abc… (1 more characters)")
    assert reveal("a\tb\n") == "a\tb\n"


_NASTY = st.lists(
    st.sampled_from(
        [
            *("`", "``", "````", "~~~", "\n", "\r\n", "\n\n", "@octocat", "#12", "<!--", "-->", "</details>"),
            *("<script>", "[x](http://e.example)", "http://e.example", "www.", "a@b.example", "|", "\u200b"),
            *(
                "\\",
                "&#64;u",
                "*b*",
                "/close",
                "> q",
                "- l",
                "# h",
                "$`x`$",
                ":tada:",
                "word",
                "\t",
                "\ud800",
            ),
            *("::error::x", "www", ".", ":", " ", "deadbeef", "(", "_", "é", "\u2028", "x" * 50),
        ]
    ),
    max_size=8,
).map("".join)


def _read_foreign(text: str) -> str:
    """Take out what is safe: the marker, fences, spans, folded titles, the one link. The rest is read."""
    marker, _, rest = text.partition("\n")
    assert re.fullmatch(r"<!-- reconciler plan [a-z0-9._%;/-]* -->", marker)
    rest = re.sub(r"(?ms)^(`{3,})diff\n.*?\n\1$", "", rest)
    rest = re.sub(
        r"(?m)^<details><summary><code>[^<>\n]*</code> [a-z0-9 ,]*</summary>$|^</details>$", "", rest
    )
    rest = re.sub(r"(?<!`)(`+)(?!`)[^\n]*?(?<!`)\1(?!`)", "", rest)
    return rest.replace(f"[the run]({RUN})", "")


@given(texts=st.lists(_NASTY, min_size=12, max_size=12), action=st.sampled_from(["create", "update"]))
def test_no_foreign_text_is_read_as_markdown(texts: list[str], action: str) -> None:
    """Outside of spans and fences stands nothing that a forge could take for a link, mention or command."""
    it = iter(texts)
    side = {"spec": {next(it): next(it), "sql": next(it)}, "entry": {"name": "a", "command": next(it)}}
    change = make_change(
        next(it),
        action,
        source=next(it),
        renamed_from=next(it),
        after=side,
        fields=[{"path": next(it), "before": texts[0], "after": texts[1]}],
        times=make_times(
            make_view(texts[0], zone=texts[1]), make_view(texts[2]), fate=texts[3], doubled=["D"]
        ),
        obstacle={"kind": "refused", "why": next(it), "remedy": next(it)},
    )
    plan = make_plan_value(
        changes=[change],
        target=next(it),
        owner=texts[2],
        notices=[{"code": texts[3], "message": next(it), "names": [texts[4]]}],
        findings=[{"code": texts[5], "severity": "error", "message": texts[6], "remedy": texts[7]}],
    )
    text = render_comment(plan, Subject(target=texts[8], scope=texts[9], commit=texts[10], run_url=RUN))
    assert text.isprintable() or all(char.isprintable() or char in "\n\t" for char in text)
    assert not re.search(r"(?m)^\s*/", text)
    rest = _read_foreign(text)
    rest = re.sub(r"(?m)^(> )?\*\*[A-Za-z0-9 :,.]+\*\*|^### |^> |</?sub>", "", rest)
    assert not re.search(r"[@#<>\[\]`*_~|\\/&!$]|www|://|[^\x00-\x7f·…→]", rest), rest


def test_a_plan_of_an_older_release_has_no_code_of_consent() -> None:
    """Its deletions are listed all the same."""
    value = make_plan_value(changes=[make_change("old")])
    assert "To consent to exactly these: `--allow-deletes 1-" in render_comment(value, SUBJECT)
    del value["consent"]
    text = render_comment(value, SUBJECT)
    assert "> **Deletes 1:** `old`" in text
    assert "consent" not in text


@pytest.mark.parametrize(
    ("reason", "shown"), [("edited", "(edited, "), ("drifted", "(drifted, "), ("both", "(both, ")]
)
def test_each_change_says_why(reason: str, shown: str) -> None:
    """An edit is told from a drift, and from one of each."""
    assert shown in render_comment(make_plan_value(changes=[make_change(reason=reason)]), SUBJECT)


def test_drift_is_not_called_a_plan() -> None:
    """What is shown was changed on the target, and nobody is asked to review it."""
    subject = Subject(target="production", is_drift=True)
    some = render_comment(make_plan_value(changes=[make_change(reason="drifted")]), subject)
    assert "### Drift on `production`" in some
    assert "**1 changed on the target behind the files' back;**" in some
    assert "**No drift:**" in render_comment(make_plan_value(changes=[]), subject)
