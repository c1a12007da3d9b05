-- name: limit_planning
SELECT set_config('statement_timeout', %(milliseconds)s, true), set_config('lock_timeout', '500ms', true);

-- name: set_role
SELECT set_config('role', %(role)s, true);

-- name: find_volatile
-- Whose call may do something though it stands in a SELECT.
SELECT DISTINCT proname::text FROM pg_catalog.pg_proc WHERE provolatile = 'v' AND proname = ANY (%(names)s);

-- name: find_relations
SELECT c.relname::text, format('%%I.%%I', n.nspname, c.relname)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relname = ANY (%(names)s) AND pg_catalog.pg_table_is_visible(c.oid);

-- name: find_callable
-- Procedures of these names, and whether the role may call one of each.
SELECT proname::text, bool_or(has_function_privilege(oid, 'EXECUTE'))
  FROM pg_catalog.pg_proc WHERE prokind = 'p' AND proname = ANY (%(names)s) GROUP BY proname;
