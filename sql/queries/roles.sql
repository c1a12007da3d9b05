-- name: find_schema
SELECT to_regnamespace('reconciler') IS NOT NULL;

-- name: list_roles
-- The roles, and who is in them. In whose sessions row-level security hides entries of cron.job is told by the member's
-- own attribute: a membership hands no attribute on.
SELECT k.kind, %(prefix)s || k.kind AS name, r.oid IS NOT NULL AS is_there, coalesce(r.rolcanlogin, false) AS can_login,
       coalesce(r.rolsuper, false) AS is_superuser,
       coalesce((SELECT jsonb_agg(jsonb_build_object('name', m.rolname, 'can_login', m.rolcanlogin,
                                                     'sees_all', m.rolsuper OR m.rolbypassrls) ORDER BY m.rolname)
                   FROM (SELECT DISTINCT member FROM pg_auth_members WHERE roleid = r.oid) AS a
                   -- From 16 on, who makes a role is put into it, with no use of it but to hand it on.
                   JOIN pg_roles m ON m.oid = a.member AND pg_has_role(a.member, r.oid, 'USAGE')), '[]') AS members
  FROM unnest(%(kinds)s::text[]) WITH ORDINALITY AS k (kind, place)
  LEFT JOIN pg_roles r ON r.rolname = %(prefix)s || k.kind
 ORDER BY k.place;

-- name: list_rights
-- What each role is to have and has, in groups that one statement grants or revokes. Nothing is named that is not
-- there: what a later release brings is found when it is there. What PUBLIC has, everybody has.
WITH roles AS (
    SELECT k.kind, %(prefix)s || k.kind AS name, r.oid, k.place, coalesce(r.rolname, 'public') AS grantee
      FROM unnest(%(kinds)s::text[]) WITH ORDINALITY AS k (kind, place)
      LEFT JOIN pg_roles r ON r.rolname = %(prefix)s || k.kind
), tables (kinds, privilege, names) AS (VALUES
    -- Null: every table and view but those that nobody but the owner reads.
    ('{reader,service}'::text[], 'SELECT', NULL::text[]),
    ('{planner,applier}', 'SELECT',
     '{migrations,definitions,revisions,queues,workers,jobs,policies,timings,pauses,identity,cron_execution_log,
       declared_jobs,declared_policies,declared_queues,declared_timings,declared_workers}'),
    ('{worker}', 'SELECT', '{queue_health,held_orders}'),
    ('{applier}', 'SELECT', '{jobs_finished}'),
    ('{applier}', 'SELECT,INSERT', '{revisions}'),
    ('{applier}', 'SELECT,UPDATE', '{jobs}'),
    ('{applier}', 'SELECT,INSERT,UPDATE', '{jobs_open,alerts,alert_deliveries}'),
    ('{applier}', 'SELECT,INSERT,UPDATE,DELETE',
     '{definitions,queues,workers,policies,dependencies,timings,job_states,starts,pauses,identity}'),
    ('{applier}', 'USAGE', '{jobs_id_seq}'),
    -- Row-level security hides its rows from all but the owner and those who bypass it.
    ('{applier}', 'SELECT,INSERT,UPDATE', '{secrets}')
), functions (kinds, schema, names) AS (VALUES
    ('{applier}'::text[], 'cron', '{schedule,schedule_in_database,alter_job,unschedule}'::text[]),
    ('{applier}', 'reconciler', '{find_queue,open_alert,resolve_alerts}'),
    ('{worker,service}', 'reconciler',
     '{claim_jobs,complete_jobs,fail_job,snooze_job,return_jobs,end_cancelled_job,renew_leases,rescue_jobs,
       report_worker,find_queue_settings,
       enqueue,enqueue_many,get_job,list_jobs,cancel_job,retry_job,retry_jobs,find_blocked}'),
    ('{service}', 'reconciler',
     '{find_api_token,note_api_token_use,begin_api_call,hold_api_call,end_api_call,list_api_calls}'),
    ('{reader}', 'reconciler', '{get_job,list_jobs,find_blocked,find_queue_settings}')
), objects AS (
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS class, n.nspname::text AS schema,
           c.relname::text AS name, c.oid, format('%%I.%%I', n.nspname, c.relname) AS object,
           c.relacl AS acl, c.relowner AS owner,
           c.relrowsecurity OR c.relname IN ('secrets', 'run_key', 'api_tokens', 'api_calls') AS is_hidden
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname IN ('reconciler', 'cron') AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
    UNION ALL
    SELECT 'ROUTINE', n.nspname, p.proname, p.oid,
           format('%%I.%%I', n.nspname, p.proname)
           || CASE WHEN count(*) OVER (PARTITION BY n.oid, p.proname) > 1
                   THEN format('(%%s)', pg_get_function_identity_arguments(p.oid)) ELSE '' END,
           p.proacl, p.proowner, false
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname IN ('reconciler', 'cron')
    UNION ALL
    SELECT 'SCHEMA', n.nspname, n.nspname, n.oid, format('%%I', n.nspname), n.nspacl, n.nspowner, false
      FROM pg_namespace n WHERE n.nspname IN ('reconciler', 'cron')
    UNION ALL
    SELECT 'DATABASE', '', d.datname, d.oid, format('%%I', d.datname), NULL, d.datdba, false
      FROM pg_database d WHERE d.datname = current_database()
    UNION ALL
    SELECT 'ROLE', '', r.rolname, r.oid, format('%%I', r.rolname), NULL, NULL, false
      FROM pg_roles r WHERE r.rolname IN ('pg_read_all_settings', 'pg_read_all_stats')
), wanted AS (
    SELECT r.kind, o.class, o.oid, one.privilege
      FROM roles r JOIN tables t ON r.kind = ANY (t.kinds)
      JOIN objects o ON o.class IN ('TABLE', 'SEQUENCE') AND o.schema = 'reconciler'
       AND (o.name = ANY (t.names) OR t.names IS NULL AND o.class = 'TABLE' AND NOT o.is_hidden)
     CROSS JOIN unnest(string_to_array(t.privilege, ',')) AS one (privilege)
    UNION
    SELECT r.kind, o.class, o.oid, 'SELECT' FROM roles r JOIN objects o ON o.class = 'TABLE' AND o.schema = 'cron'
     WHERE r.kind <> 'worker' AND o.name IN ('job', 'job_run_details')
    UNION
    SELECT r.kind, o.class, o.oid, 'EXECUTE'
      FROM roles r JOIN functions f ON r.kind = ANY (f.kinds)
      JOIN objects o ON o.class = 'ROUTINE' AND o.schema = f.schema AND o.name = ANY (f.names)
    UNION
    SELECT r.kind, o.class, o.oid, 'USAGE' FROM roles r JOIN objects o ON o.class = 'SCHEMA'
     WHERE o.name = 'reconciler' OR r.kind <> 'worker'
    UNION
    SELECT r.kind, o.class, o.oid, 'CONNECT' FROM roles r JOIN objects o ON o.class = 'DATABASE'
    UNION
    -- Values of secrets are brought by way of a temporary table.
    SELECT r.kind, o.class, o.oid, 'TEMPORARY' FROM roles r JOIN objects o ON o.class = 'DATABASE'
     WHERE r.kind = 'applier'
    UNION
    -- Settings of pg_cron, and whether its launcher lives.
    SELECT r.kind, o.class, o.oid, 'MEMBER' FROM roles r JOIN objects o ON o.class = 'ROLE' WHERE r.kind <> 'worker'
), found AS (
    SELECT w.kind, w.class, w.oid, w.privilege,
           CASE w.class
                WHEN 'TABLE'    THEN has_table_privilege(r.grantee, w.oid, w.privilege)
                WHEN 'SEQUENCE' THEN has_sequence_privilege(r.grantee, w.oid, w.privilege)
                WHEN 'ROUTINE'  THEN has_function_privilege(r.grantee, w.oid, w.privilege)
                WHEN 'SCHEMA'   THEN has_schema_privilege(r.grantee, w.oid, w.privilege)
                WHEN 'DATABASE' THEN has_database_privilege(r.grantee, w.oid, w.privilege)
                WHEN 'ROLE'     THEN coalesce(pg_has_role(r.oid, w.oid, 'USAGE'), false) END AS is_had
      FROM wanted w JOIN roles r USING (kind)
), judged AS (
    SELECT kind, class, oid, privilege, CASE WHEN is_had THEN 'has' ELSE 'missing' END AS state FROM found
    UNION ALL
    SELECT r.kind, o.class, o.oid, a.privilege_type, 'extra'
      FROM objects o CROSS JOIN LATERAL aclexplode(o.acl) AS a JOIN roles r ON r.oid = a.grantee
     WHERE o.owner <> r.oid
       AND NOT EXISTS (SELECT FROM wanted w WHERE w.kind = r.kind AND w.class = o.class AND w.oid = o.oid
                                              AND w.privilege = a.privilege_type)
), privileges AS (
    SELECT j.kind, j.state, j.class, o.schema, o.object,
           string_agg(j.privilege, ', ' ORDER BY position(j.privilege IN 'SELECT INSERT UPDATE DELETE'), j.privilege)
               AS privileges
      FROM judged j JOIN objects o USING (class, oid)
     GROUP BY j.kind, j.state, j.class, o.schema, o.object
), merged AS (
    SELECT p.*, row_number() OVER (PARTITION BY p.kind, p.state, p.class, p.schema, p.privileges ORDER BY p.object) - 1
                AS place
      FROM privileges p
)
SELECT m.kind, m.state, m.class, m.privileges, array_agg(m.object ORDER BY m.place) AS objects,
       CASE m.state WHEN 'has' THEN '' ELSE
           CASE m.state WHEN 'missing' THEN 'GRANT ' ELSE 'REVOKE ' END
           || CASE m.class WHEN 'ROLE' THEN '' ELSE format('%%s ON %%s ', m.privileges, m.class) END
           || string_agg(m.object, CASE m.place %% 4 WHEN 0 THEN E',\n    ' ELSE ', ' END ORDER BY m.place)
           || format(CASE m.state WHEN 'missing' THEN ' TO %%I' ELSE ' FROM %%I' END, r.name) END AS statement
  FROM merged m JOIN roles r USING (kind)
 GROUP BY r.place, r.name, m.kind, m.state, m.class, m.schema, m.privileges
 ORDER BY r.place, m.state DESC, m.class, m.schema, m.privileges;

-- name: write_create
SELECT format('CREATE ROLE %%I NOLOGIN', name) FROM unnest(%(names)s::text[]) AS name;

-- name: list_logins
SELECT r.rolname::text, r.rolcanlogin, r.rolsuper OR r.rolbypassrls FROM pg_roles r WHERE r.rolname = ANY (%(logins)s);

-- name: write_membership
-- Of those who are no members yet.
SELECT format('GRANT %%I TO %%I', g.role, g.login)
  FROM unnest(%(roles)s::text[], %(logins)s::text[]) WITH ORDINALITY AS g (role, login, place)
 WHERE NOT EXISTS (SELECT FROM pg_roles r JOIN pg_roles m ON m.rolname = g.login
                    WHERE r.rolname = g.role AND pg_has_role(m.oid, r.oid, 'USAGE'))
 ORDER BY g.place;

-- name: write_bypass
SELECT format('ALTER ROLE %%I BYPASSRLS', r.rolname) FROM pg_roles r
 WHERE r.rolname = ANY (%(logins)s) AND NOT r.rolbypassrls AND NOT r.rolsuper ORDER BY r.rolname;

-- name: find_dependents
-- What keeps a role from being dropped: what it owns anywhere, and its rights in other databases.
SELECT r.rolname::text AS role, s.deptype = 'o' AS is_owner,
       coalesce((SELECT d.datname::text FROM pg_database d WHERE d.oid = s.dbid), '') AS database,
       count(*)::integer AS objects
  FROM pg_shdepend s JOIN pg_roles r ON s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid
 WHERE r.rolname = ANY (%(names)s)
   AND (s.deptype = 'o' OR s.dbid NOT IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())))
 GROUP BY 1, 2, 3
 ORDER BY 1, 2, 3;

-- name: write_drop
-- Whatever was granted here, by this release or another one; memberships go with the role.
WITH roles AS (
    SELECT r.oid, r.rolname FROM pg_roles r WHERE r.rolname = ANY (%(names)s)
), granted AS (
    SELECT r.rolname, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS class, n.nspname,
           format('%%I.%%I', n.nspname, c.relname) AS object
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     CROSS JOIN LATERAL aclexplode(c.relacl) AS a JOIN roles r ON r.oid = a.grantee
    UNION
    SELECT r.rolname, 'ROUTINE', n.nspname,
           format('%%I.%%I(%%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid))
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     CROSS JOIN LATERAL aclexplode(p.proacl) AS a JOIN roles r ON r.oid = a.grantee
    UNION
    SELECT r.rolname, 'SCHEMA', '', format('%%I', n.nspname)
      FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) AS a JOIN roles r ON r.oid = a.grantee
    UNION
    SELECT r.rolname, 'DATABASE', '', format('%%I', d.datname)
      FROM pg_database d CROSS JOIN LATERAL aclexplode(d.datacl) AS a JOIN roles r ON r.oid = a.grantee
     WHERE d.datname = current_database()
)
SELECT statement FROM (
    SELECT 0 AS step, format('REVOKE ALL ON %%s %%s FROM %%I', class, string_agg(object, ', ' ORDER BY object), rolname)
               AS statement
      FROM granted GROUP BY rolname, class, nspname
    UNION ALL
    SELECT 1, format('DROP ROLE %%I', rolname) FROM roles WHERE rolname <> ALL (%(kept)s)
) AS written
 ORDER BY step, statement;
