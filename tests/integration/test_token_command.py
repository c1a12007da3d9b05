"""The commands `token create|list|revoke`: who may call the service."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from reconciler.core.api_tokens import make_digest, parse_token
from reconciler.database.connect import connect
from reconciler.database.migrate import migrate_target
from tests.declared import Site

if TYPE_CHECKING:
    from tests.conftest import Cli
    from tests.servers import Database

pytestmark = pytest.mark.one_server


@pytest.fixture
def site(database: Database) -> Site:
    """A database with the schema of this release."""
    site = Site(database)
    with connect(site.dsn) as conn:
        migrate_target(conn)
    return site


def test_a_token_is_shown_once_and_kept_as_a_digest(shell: Cli, site: Site) -> None:
    """On standard output alone, for a pipe to the place where it belongs; advice goes to standard error."""
    made = shell("token", "create", "ci", "--scope", "write", "--scope", "read", "--expires", "90d")
    given = parse_token(made.stdout.removesuffix("\n"))
    assert given is not None
    assert re.fullmatch(
        r"It opens read, write until [0-9-]+ [0-9:]+Z\. It is not shown again\.\n", made.stderr
    ), made.stderr
    rows = site.rows(
        "SELECT id, digest, name, scopes, expires_at - created_at < interval '90 days 1 minute',"
        " created_by = current_user FROM reconciler.api_tokens"
    )
    assert rows == [(given.id, make_digest(given), "ci", ["read", "write"], True, True)]
    text = site.rows("SELECT t::text FROM reconciler.api_tokens t")[0][0]
    assert given.secret.reveal() not in text


def test_tokens_are_listed_without_what_opens(shell: Cli, site: Site) -> None:
    """With their states; those that were revoked come last."""
    assert shell("token", "list").stdout == "No tokens: reconciler token create makes one.\n"
    assert shell("token", "list", "--json").stdout == "[]\n"
    for name in ("old", "ci", "late"):
        assert shell("token", "create", name, "--scope", "read").exit_code == 0
    shell("token", "revoke", "ci")
    site.run("UPDATE reconciler.api_tokens SET expires_at = clock_timestamp() WHERE name = 'old'")
    head, *lines = shell("token", "list").stdout.splitlines()
    assert head.split() == ["name", "id", "scopes", "state", "expires", "last", "used", "created"]
    assert [re.split(r"  +", line)[::3][:2] for line in lines] == [
        ["late", "good"],
        ["old", "expired"],
        ["ci", "revoked"],
    ]
    late = json.loads(shell("token", "list", "--json").stdout)[0]
    assert re.fullmatch(r"[a-z2-7]{16}", late.pop("id"))
    assert late.pop("created_at").endswith("Z")
    assert late.pop("created_by")
    assert late == {
        "name": "late",
        "scopes": ["read"],
        "state": "good",
        "expires_at": None,
        "revoked_at": None,
        "last_used_at": None,
    }


def test_a_token_is_revoked_by_name_by_id_and_by_itself(shell: Cli, site: Site) -> None:
    """Whatever somebody has of it; its name is free for the next one."""
    for pick in (lambda _: "ci", lambda token: token[4:20], lambda token: token):
        token = shell("token", "create", "ci", "--scope", "run").stdout.strip()
        assert shell("token", "revoke", pick(token)).stdout == f"Revoked ci ({token[4:20]}).\n"
    assert site.rows("SELECT count(*), count(revoked_at) FROM reconciler.api_tokens") == [(3, 3)]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["create", "deploy", "--scope", "read"], 1, "there is a token deploy already"),
        (["create", "CI", "--scope", "read"], 2, "1 to 63 lower-case letters"),
        (["create", "a"], 2, "Missing option '--scope'"),
        (["create", "a", "--scope", "admin"], 2, "'read', 'trigger', 'write', 'run'"),
        (["create", "a", "--scope", "read", "--expires", "soon"], 2, "is no duration"),
        (["create", "a", "--scope", "read", "--expires", "99999999999d"], 2, "longer than ten years"),
        (["revoke", "deplyo"], 1, "did you mean deploy?"),
        (["revoke", "old"], 1, "was revoked before"),
        (["revoke", "what\x7fever"], 1, "reconciler token list shows them"),
        (["revoke", "rct_aaaaaaaaaaaaaaaa_part"], 2, "a part of a token"),
    ],
)
def test_what_is_wrong_is_said(shell: Cli, args: list[str], code: int, said: str) -> None:
    """With what to do; a token that somebody pasted is not repeated."""
    shell("token", "create", "deploy", "--scope", "read")
    shell("token", "create", "old", "--scope", "read")
    shell("token", "revoke", "old")
    result = shell("token", *args)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert "rct_" not in result.stderr


def test_a_role_without_rights_and_an_older_schema_are_told(shell: Cli, site: Site) -> None:
    """Only the owner of the schema makes tokens."""
    site.run("CREATE ROLE eve LOGIN")
    eve = ("--dsn", site.database.dsn_for("eve"))
    for args in (("list",), ("create", "a", "--scope", "read"), ("revoke", "a")):
        result = shell("token", *args, *eve)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "lacks a right" in result.stderr
    site.run("DROP TABLE reconciler.api_tokens")
    result = shell("token", "list")
    assert result.exit_code == 1
    assert "run reconciler migrate" in result.stderr
