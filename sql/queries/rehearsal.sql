-- name: set_role
SELECT set_config('role', %(role)s, true);

-- name: take_search_path
-- A session of the role itself would begin with the role's own search_path. The most special setting counts.
SELECT set_config('search_path', substr(own.setting, length('search_path=') + 1), true)
  FROM (SELECT setting
          FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS setting
         WHERE starts_with(setting, 'search_path=')
           AND s.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = %(role)s))
           AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
         ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1) AS own;

-- name: read_session
SELECT session_user::text, current_database()::text;

-- name: limit_statement
SELECT set_config('statement_timeout', %(milliseconds)s, true), set_config('lock_timeout', '5s', true),
       set_config('reconciler.statement', %(statement)s, true);

-- name: execute_statement
-- EXECUTE refuses BEGIN, COMMIT and the like, as it does in a real run.
DO $rehearsal$
BEGIN
    EXECUTE pg_catalog.current_setting('reconciler.statement');
END
$rehearsal$;

-- name: check_constraints
SET CONSTRAINTS ALL IMMEDIATE;
