"""What the lines of a crontab do in a database, and which lines do anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.imports.crontabs import import_crontab
from reconciler.core.imports.shell_words import ShellError, split_words
from reconciler.loader.sql_texts import find_sql_fault
from tests.canary import CANARY

if TYPE_CHECKING:
    from reconciler.core.imports.results import ImportedFiles

FILES = {
    "/srv/tidy.sql": "DELETE FROM a;\nDELETE FROM b;\n",
    "/srv/one.sql": "SELECT 1\n",
    "/srv/meta.sql": "\\set x 1\nSELECT 1;\n",
    "/srv/variable.sql": "DELETE FROM a WHERE b = :'x';\n",
    "/srv/both.sql": "BEGIN;\nDELETE FROM a;\nCOMMIT;\n",
    "/srv/vacuum.sql": "DELETE FROM a;\nVACUUM a;\n",
    "/srv/bad.sql": "SELECT 'x\n",
}
ZONE = "CRON_TZ=Europe/Oslo\n"
RUN = "https://app.test/api/run"


def read(text: str, **options: Any) -> ImportedFiles:
    """Import a crontab."""
    return import_crontab(text, path="crontab", find_fault=find_sql_fault, read_file=FILES.get, **options)


def job(text: str, **options: Any) -> dict[str, Any]:
    """Import a crontab of one job, and give that without its name."""
    imported = read(text, **options)
    assert imported.left == ()
    (declared,) = imported.jobs.values()
    return dict(declared)


def reason(text: str, **options: Any) -> str:
    """Import a crontab of one line that is left, and say why."""
    imported = read(text, **options)
    assert not imported.jobs
    (left,) = imported.left
    return left.reason


# ------------------------------------------------------------------------------------------- SQL


@pytest.mark.parametrize(
    "command",
    [
        'psql -c "SELECT 1"',
        "/usr/bin/psql -AtXqc 'SELECT 1' >/dev/null 2>&1",
        "psql --command='SELECT 1' --no-psqlrc -v ON_ERROR_STOP=1 >> /var/log/x.log 2>&1",
        "PGPASSWORD=x psql -w -c 'SELECT 1' &> /dev/null",
        "cd /srv && psql -qc SELECT\\ 1",
        'psql -o /tmp/x -c "SELECT" 1'.replace('"SELECT" 1', '"SELECT 1"'),
        'echo "SELECT 1" | psql',
        "psql%SELECT 1",
        "psql -c 'SELECT 1' # comment",
        "psql -c 'SELECT 1';",
        "nice -n 19 ionice -c3 chronic psql -c 'SELECT 1'",
    ],
)
def test_sql_that_psql_runs_becomes_a_managed_job(command: str) -> None:
    """However it is given; where the output goes is passed over."""
    assert job(f"5 4 * * * {command}\n") == {"schedule": "5 4 * * *", "sql": "SELECT 1"}


def test_files_are_read() -> None:
    """By their whole name, below the folder in which the command runs, and as standard input."""
    sql = FILES["/srv/tidy.sql"]
    for command in ("psql -f /srv/tidy.sql", "cd /srv; psql -f tidy.sql", "psql < /srv/tidy.sql"):
        imported = read(f"5 4 * * * {command}\n")
        assert [one["sql"] for one in imported.jobs.values()] == [sql]
        assert any("one transaction" in remark.message for remark in imported.remarks)


def test_a_percent_sign_ends_a_line_and_an_escaped_one_stays() -> None:
    """What stands behind the first is what the command reads."""
    assert job("5 4 * * * psql%SELECT 1\\%2,%  3;")["sql"] == "SELECT 1%2,\n  3;"
    assert job("5 4 * * * psql -c 'SELECT 5 \\% 3'")["sql"] == "SELECT 5 % 3"


def test_what_cannot_run_in_a_transaction_is_direct() -> None:
    """VACUUM and its like."""
    assert job("5 4 * * * psql -c 'VACUUM ANALYZE'") == {
        "schedule": "5 4 * * *",
        "sql": "VACUUM ANALYZE",
        "mode": "direct",
    }


def test_sql_is_kept_from_variables() -> None:
    """What looks like a variable of ours is escaped."""
    assert job("5 4 * * * psql -c 'SELECT $$${var:x}$$'")["sql"] == "SELECT $$$${var:x}$$"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/usr/local/bin/backup.sh", "what backup.sh does, a database cannot"),
        ("pg_dump shop | gzip > x", "more than one command (|)"),
        ("psql -c 'SELECT 1' && psql -c 'SELECT 2'", "more than one command (&&)"),
        ("psql -c 'SELECT 1' &", "more than one command (&)"),
        ('psql -c "SELECT $(date)"', "runs another command first"),
        ('psql -c "SELECT `date`"', "runs another command first"),
        ('psql -c "SELECT $NOBODY"', "puts $NOBODY into the SQL"),
        ('psql -c "SELECT $1"', "puts something in"),
        ('psql -c "SELECT ${X:-1}"', "works a variable out"),
        ("psql -c $'SELECT 1'", "to each shell"),
        ("psql -c 'SELECT 1", "not closed"),
        ('psql -c "SELECT 1', "not closed"),
        ("psql shop", "it runs no SQL"),
        ("psql -c 'SELECT 1' -c 'SELECT 2'", "several pieces"),
        ("psql -c 'SELECT 1' -f /srv/one.sql", "several pieces"),
        ("psql -v day=1 -f /srv/one.sql", "a variable of psql"),
        ("psql -l", "psql does with -l"),
        ("psql a b c -c 'SELECT 1'", "more than a database and a user"),
        ("psql -f /srv/none.sql", "is not here"),
        ("psql -f $SQL", "up to $SQL"),
        ("psql -f /srv/meta.sql", "command of psql"),
        ("psql -f /srv/variable.sql", "(:name)"),
        ("psql -f /srv/both.sql", "transactions"),
        ("psql -f /srv/vacuum.sql", "run alone"),
        ("psql -f /srv/bad.sql", "not closed"),
        ("psql -c 'BEGIN'", "one transaction already"),
        ("psql -c '\\dt'", "command of psql"),
        ("psql -c 'COPY a TO STDOUT'", "COPY"),
        ("psql <<EOF", "reads on"),
        ("X=1", "runs no command"),
        ("timeout 0 psql -c x", "time limit"),
        ("flock -w 5 /tmp/x psql -c x", "lock"),
        ("printf '%s' x | psql", "up to the shell"),
    ],
)
def test_other_commands_are_left_with_their_reason(command: str, words: str) -> None:
    """Nothing is guessed; a percent sign is written as crontabs need it."""
    text = "5 4 * * * " + command.replace("%", "\\%")
    found = reason(text)
    assert words in found
    assert str(read(text).left[0].source) == "crontab:1"


def test_time_limits_and_locks_become_ours() -> None:
    """`flock` waits unless it is told not to; what goes on makes a managed job skip anyway."""
    assert job("5 4 * * * timeout 5m psql -c 'SELECT 1'")["timeout"] == "5m"
    assert job("5 4 * * * timeout 90 psql -c 'SELECT 1'")["timeout"] == "90s"
    assert job("5 4 * * * flock /tmp/x psql -c 'SELECT 1'")["concurrency"] == "wait"
    assert "concurrency" not in job("5 4 * * * flock -n /tmp/x psql -c 'SELECT 1'")


# ---------------------------------------------------------------------------------- where it runs


@pytest.mark.parametrize(
    ("line", "role"),
    [
        ("psql -U alice -c 'SELECT 1'", "alice"),
        ("psql shop alice -c 'SELECT 1'", "alice"),
        (f"psql postgresql://alice:{CANARY}@db:5432/shop?sslmode=require -c 'SELECT 1'", "alice"),
        ("psql 'host=db user=alice dbname=shop' -c 'SELECT 1'", "alice"),
        ("PGUSER=alice psql -c 'SELECT 1'", "alice"),
        ("psql -c 'SELECT 1'", None),
    ],
)
def test_the_role_is_the_one_that_is_named(line: str, role: str | None) -> None:
    """A password on the line is neither kept nor shown."""
    imported = read(f"5 4 * * * {line}")
    assert [one.get("role") for one in imported.jobs.values()] == [role]
    assert CANARY not in repr(imported)


def test_variables_of_the_crontab_count() -> None:
    """From their line on, with and without quotes; nothing is put into single quotes."""
    text = 'PGUSER=alice\nDB = "shop"\n5 4 * * * psql $DB -c "SELECT \'$DB\' AS ${DB}"\n'
    imported = read(text)
    assert imported.jobs["select-shop-as-shop"]["sql"] == "SELECT 'shop' AS shop"
    assert imported.jobs["select-shop-as-shop"]["role"] == "alice"
    assert any("ran in shop" in remark.message for remark in imported.remarks)


def test_jobs_of_several_databases_are_imported_one_by_one() -> None:
    """Which of them the target is, only a person knows."""
    text = "5 4 * * * psql shop -c 'SELECT 1'\n6 4 * * * psql -h db -d bill -c 'SELECT 2'\n"
    imported = read(text)
    assert imported.jobs == {}
    assert all("db/bill, shop" in left.reason for left in imported.left)
    assert [one["sql"] for one in read(text, database="bill").jobs.values()] == ["SELECT 2"]
    assert "not bill" in read(text, database="bill").left[0].reason


# ------------------------------------------------------------------------------------------ times


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("5\t4  * * *", "5 4 * * *"),
        ("*/15 9-17 * jan-mar mon-fri", "*/15 9-17 * jan-mar mon-fri"),
        ("0 0 13 * 5", "0 0 13 * 5"),
        ("0 0 * * 7", "0 0 * * 7"),
        ("@daily", "@daily"),
        ("@midnight", "@midnight"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
    ],
)
def test_times_are_kept(written: str, expected: str) -> None:
    """pg_cron reads them as cron does, but for @yearly, which it never runs."""
    assert job(f"  {written} psql -c 'SELECT 1'")["schedule"] == expected


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("@reboot", "whenever its launcher starts"),
        ("@every_minute", "write '* * * * *'"),
        ("0 0 * * sat-sun", "write '0 0 * * "),
        ("0 22-2 * * *", "write '0 22-23,0-2 * * *'"),
        ("5~30 * * * *", "minute"),
        ("0 0 31 2 *", "never"),
        ("61 * * * *", "minute"),
    ],
)
def test_times_that_pg_cron_reads_otherwise_are_left(written: str, words: str) -> None:
    """With the right spelling, where there is one."""
    assert words in reason(f"{written} psql -c 'SELECT 1'")


def test_the_zone_is_that_of_cron_tz() -> None:
    """It holds for the lines below it, before what the command line says."""
    text = "1 4 * * * psql -c 'SELECT 1'\n" + ZONE + "2 4 * * * psql -c 'SELECT 2'\n"
    jobs = read(text, timezone="Asia/Tokyo").jobs
    assert jobs["select-1"]["timezone"] == "Asia/Tokyo"
    assert jobs["select-2"]["timezone"] == "Europe/Oslo"
    imported = read(text)
    assert "timezone" not in imported.jobs["select-1"]
    assert [str(one.source) for one in imported.remarks if "CRON_TZ" in one.message] == ["crontab:1"]


def test_a_direct_job_in_another_zone_is_left() -> None:
    """pg_cron knows one zone; times that are the same in all of them, and those of UTC, can be said."""
    vacuum = "psql -c 'VACUUM'"
    assert "own zone" in reason(f"{ZONE}5 4 * * * {vacuum}")
    assert "timezone" not in job(f"{ZONE}*/5 * * * * {vacuum}")
    assert job(f"CRON_TZ=UTC\n5 4 * * * {vacuum}")["timezone"] == "UTC"


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "CET", "EST5EDT"])
def test_zones_have_to_be_known_by_their_place(zone: str) -> None:
    """Others mean different things to different machines."""
    assert zone in reason(f"CRON_TZ={zone}\n5 4 * * * psql -c 'SELECT 1'")


# ---------------------------------------------------------------------------------- lines and names


def test_the_system_form_has_users() -> None:
    """Without being told so, the user is taken for the command, and the reason says what to do."""
    line = "5 4 * * * postgres psql -c 'SELECT 1'\n"
    assert job(line, has_users=True)["sql"] == "SELECT 1"
    assert "--system" in reason(line)


def test_comments_and_blank_lines_are_no_jobs_and_others_are_left() -> None:
    """With the number of each line, also with line ends of Windows."""
    imported = read("# x\r\n\r\n5 4 * * * psql -c 'SELECT 1'\r\nnonsense\r\n5 4 * *\r\n")
    assert list(imported.jobs) == ["select-1"]
    assert [str(left.source) for left in imported.left] == ["crontab:4", "crontab:5"]


@pytest.mark.parametrize(
    ("above", "name"),
    [
        ("# Nightly clean-up!\n", "nightly-clean-up"),
        ("# one two three four five six seven eight\n", "one-two-three-four-five-six"),
        ("# Nightly clean-up!\n\n", "delete-from-sessions"),
        ("# m h  dom mon dow   command\n", "delete-from-sessions"),
        ("# 5 4 * * * psql -c 'SELECT 2'\n", "delete-from-sessions"),
        ("# ----------\n", "delete-from-sessions"),
        ("#\n", "delete-from-sessions"),
        ("# the api token is hunter2\n", "delete-from-sessions"),
        ("# reconciler-x\n", "reconciler-x"),
    ],
)
def test_names_come_from_the_comment_above_or_the_command(above: str, name: str) -> None:
    """A comment that stands right above and says something."""
    imported = read(f"{above}5 4 * * * psql -c 'DELETE FROM sessions'\n")
    assert list(imported.jobs) == [name if name != "reconciler-x" else "cron-reconciler-x"]


def test_names_are_unique() -> None:
    """The second of a name has a number."""
    line = "5 4 * * * psql -c 'SELECT 1'\n"
    assert list(read(line * 3).jobs) == ["select-1", "select-1-2", "select-1-3"]


def test_comments_become_descriptions() -> None:
    """A comment is for one line; what may be secret is left out."""
    text = "# Clean up ${x}\n5 4 * * * psql -c 'SELECT 1'\n6 4 * * * psql -c 'SELECT 2'\n"
    assert [one.get("description") for one in read(text).jobs.values()] == ["Clean up $${x}", None]


# --------------------------------------------------------------------------------------- requests


def http(command: str) -> dict[str, Any]:
    """Import one call of curl, and give its request."""
    request: dict[str, Any] = job(f"5 4 * * * {command}")["http"]
    return request


def test_a_request_is_declared_with_its_method() -> None:
    """Curl's own is GET, ours is POST."""
    assert http(f"curl -fsS {RUN} > /dev/null") == {"url": RUN, "method": "GET"}
    assert http(f"curl --silent --request post --url '{RUN}?a=1&b=2'") == {
        "url": f"{RUN}?a=1&b=2",
        "method": "POST",
    }


def test_headers_bodies_and_time_limits_are_declared() -> None:
    """A body without a type is a form, as curl sends it."""
    assert http(f"curl -m 10 -H 'Content-Type: application/json' -d '{{\"a\": \"${{x}}\"}}' {RUN}") == {
        "url": RUN,
        "method": "POST",
        "headers": {"Content-Type": "application/json"},
        "body": '{"a": "$${x}"}',
        "timeout": "10s",
    }
    assert http(f"curl -X PUT -d a=1 --data b=2 --max-time 1.5 {RUN}") == {
        "url": RUN,
        "method": "PUT",
        "headers": {"Content-Type": "application/x-www-form-urlencoded"},
        "body": "a=1&b=2",
        "timeout": "1500ms",
    }
    assert http(f"curl --json '{{}}' -A me {RUN}")["headers"] == {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "User-Agent": "me",
    }


def test_a_bearer_token_becomes_a_secret() -> None:
    """Its value is nowhere; a variable that holds it is the one that is suggested."""
    text = (
        f"# Run it\n5 4 * * * curl -X POST -H 'Authorization: Bearer {CANARY}' {RUN}\n"
        f'6 4 * * * curl -X POST -H "authorization: bearer $APP_TOKEN" {RUN}\n'
        f"TOKEN={CANARY}\n"
        f'7 4 * * * curl -X POST -H "Authorization: Bearer $TOKEN" {RUN}/2\n'
    )
    imported = read(text)
    assert imported.left == ()
    assert {name: one["http"]["token"] for name, one in imported.jobs.items()} == {
        "run-it": {"secret": "run-it"},
        "api-run": {"secret": "api-run"},
        "api-run-2": {"secret": "api-run-2"},
    }
    assert imported.secrets == {
        "run-it": "RUN_IT_TOKEN",
        "api-run": "APP_TOKEN",
        "api-run-2": "API_RUN_2_TOKEN",
    }
    assert CANARY not in repr(imported)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (f"-u me:{CANARY} {RUN}", "-u"),
        (f"-H 'X-Api-Key: {CANARY}' {RUN}", "X-Api-Key"),
        (f"-H 'Authorization: Basic {CANARY}' {RUN}", "Authorization"),
        (f"-b session={CANARY} {RUN}", "-b"),
        (f"'{RUN}?token={CANARY}'", "looks like a secret"),
        (f"https://me:{CANARY}@app.test/", "password"),
        (f"-H 'Authorization: Bearer {CANARY}' -k {RUN}", "-k"),
        (f"-H 'Authorization: Bearer {CANARY}' {RUN} {RUN}", "several"),
        (f"-d @file {RUN}", "in a file"),
        (f"-d $X {RUN}", "puts $X into what it sends"),
        (f"-H 'X-A: $X' {RUN}".replace("'", '"'), "into the header X-A"),
        (f"-H nonsense {RUN}", "header"),
        (f"-X PURGE {RUN}", "PURGE"),
        ("app.test/x", "http://"),
        ("$URL", "into the address"),
        (f"{RUN} -X", "no value"),
    ],
)
def test_other_requests_are_left_and_show_no_secret(arguments: str, words: str) -> None:
    """Only bearer tokens are kept as secrets; what is left is shown without what may be one."""
    text = f"5 4 * * * curl {arguments}"
    assert words in reason(text)
    assert CANARY not in repr(read(text))


# -------------------------------------------------------------------------------------- shell words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a  'b c' \"d e\" f\\ g", ["a", "b c", "d e", "f g"]),
        ("a'b'\"c\"d ''", ["abcd", ""]),
        ('"a\\"b\\\\c\\d"', ['a"b\\c\\d']),
        ("$X \"${X}y\" '$X' \\$X $", ["1", "1y", "$X", "$X", "$"]),
        ("a>b 2>&1 c>>d", ["a", ">", "b", "2>&", "1", "c", ">>", "d"]),
        ("a;b&&c||d|e", ["a", ";", "b", "&&", "c", "||", "d", "|", "e"]),
        ("a&>b", ["a", "&>", "b"]),
        ("a#b #c", ["a#b"]),
        ("a\\\nb", ["ab"]),
    ],
)
def test_words_are_split_as_sh_splits_them(text: str, words: list[str]) -> None:
    """Quotes, escapes, variables, operators and comments."""
    assert [word.text for word in split_words(text, {"X": "1"})] == words


def test_unknown_variables_are_known_to_be_unknown() -> None:
    """The word keeps their names, so that nobody takes it for its value."""
    (word,) = split_words('"a$Y"', {})
    assert (word.text, word.unknown) == ("a$Y", ("Y",))
    with pytest.raises(ShellError):
        split_words("a$(b)", {})
