-- name: prepare_session
-- Not behind a pooler, whose word for the number of our session is its own: there the setting would stay with a session
-- that others get next. Whoever set a limit for the role, the database or the connection knows better.
SELECT of.is_ours,
       CASE WHEN of.is_ours AND current_setting('statement_timeout') = '0'
            THEN set_config('statement_timeout', %(limit)s::text, false) END,
       -- What requests ask for is short, and compiling it would take longer.
       CASE WHEN of.is_ours THEN set_config('jit', 'off', false) END
  FROM (SELECT pg_backend_pid() = %(pid)s::integer AS is_ours) AS of;
