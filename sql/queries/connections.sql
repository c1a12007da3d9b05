-- name: limit_statements
-- Not behind a pooler, whose word for the number of our session is its own: there the setting would stay with a session
-- that others get next. Whoever set a limit for the role, the database or the connection knows better.
SELECT set_config('statement_timeout', %(limit)s::text, false)
 WHERE pg_backend_pid() = %(pid)s::integer AND current_setting('statement_timeout') = '0';
