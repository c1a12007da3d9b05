"""Secrets that an apply brings to the target: stored once, changed when they change, and seen by nobody."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.core.hidden import Hidden
from reconciler.database.apply import apply_target, plan_target
from reconciler.database.connect import connect
from reconciler.database.secrets import StoredSecret
from reconciler.runtime.cluster import read_log
from reconciler.runtime.local import find_local_server
from tests.declared import Site, job, request

if TYPE_CHECKING:
    from reconciler.database.apply import Applied

CANARY = "canary-5f0c9e-value"
CALL = job("call", http={"url": "https://a.test", "token": {"secret": "shop"}})


def apply(site: Site, **secrets: StoredSecret) -> Applied:
    """Apply the one job, bringing secrets."""
    with connect(site.dsn) as conn:
        return apply_target(conn, replace(request(CALL), secrets=secrets))


def test_a_secret_is_stored_once(site: Site) -> None:
    """The first apply brings it, the next one has nothing to do, a new value arrives without any change."""
    first = StoredSecret(value=Hidden(CANARY))
    assert apply(site, shop=first).secrets == ("shop",)
    assert apply(site, shop=first).secrets == ()
    again = apply(site, shop=StoredSecret(value=Hidden("other")))
    assert (again.secrets, again.revision) == (("shop",), None)
    assert site.rows("SELECT name, value, vault_name FROM reconciler.secrets") == [("shop", "other", None)]


def test_a_secret_of_the_vault_stays_there(site: Site) -> None:
    """Of a secret in Supabase Vault the target knows the name alone."""
    apply(site, shop=StoredSecret(vault_name="shop_key"))
    assert site.rows("SELECT name, value, vault_name FROM reconciler.secrets") == [("shop", None, "shop_key")]


def test_a_missing_secret_is_noticed(site: Site) -> None:
    """Plan says which secret the target will lack, until it is there or brought."""
    with connect(site.dsn) as conn:
        notices = plan_target(conn, request(CALL)).plan.notices
        assert [notice.names for notice in notices if notice.code == "secret"] == [("call",)]
    apply(site, shop=StoredSecret(value=Hidden(CANARY)))
    with connect(site.dsn) as conn:
        assert "secret" not in [notice.code for notice in plan_target(conn, request(CALL)).plan.notices]


def test_no_other_role_sees_a_value(site: Site) -> None:
    """A role with SELECT on every table reads no secret, and its plan does not claim to know."""
    apply(site, shop=StoredSecret(value=Hidden(CANARY)))
    site.run(
        "CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA reconciler, cron TO reader;"
        " GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO reader"
    )
    with site.database.connect("reader") as conn:
        assert conn.execute("SELECT * FROM reconciler.secrets").fetchall() == []
        assert conn.execute("SELECT * FROM reconciler.run_key").fetchall() == []
        assert "secret" in [notice.code for notice in plan_target(conn, request(CALL)).plan.notices]


def test_a_secret_is_in_no_table_and_no_log(site: Site) -> None:
    """With every statement and parameter logged, an apply leaves the value in its own table alone."""
    server = find_local_server(site.database.server._private_folder())
    assert server is not None
    site.database.server.reload(
        log_statement="all", log_parameter_max_length="-1", log_min_duration_statement="0"
    )
    site.run("CREATE TABLE public.sightings (place text)")
    apply(site, shop=StoredSecret(value=Hidden(CANARY)))
    site.run(
        """
        DO $$
        DECLARE found boolean; place regclass;
        BEGIN
            FOR place IN SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                          WHERE c.relkind = 'r' AND n.nspname IN ('reconciler', 'cron') LOOP
                EXECUTE format(
                    'SELECT EXISTS (SELECT FROM %s t WHERE t::text LIKE ''%%canary-5f0c9e%%'')', place)
                   INTO found;
                IF found THEN INSERT INTO public.sightings VALUES (place::text); END IF;
            END LOOP;
        END $$
        """
    )
    assert site.rows("SELECT place FROM public.sightings") == [("reconciler.secrets",)]
    texts = read_log(server, lines=2000)
    assert "COPY pg_temp.brought_secrets" in texts
    assert CANARY not in texts
