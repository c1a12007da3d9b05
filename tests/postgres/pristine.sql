-- One text that stays the same as long as nobody changes the schema with the number {oid}: its objects, their owners
-- and privileges, and what elsewhere depends on them. Not its rows, nor what is counted of them.
WITH relations AS MATERIALIZED (
    SELECT * FROM pg_class WHERE relnamespace = {oid}
), functions AS MATERIALIZED (
    SELECT oid, xmin, ctid FROM pg_proc WHERE oid >= 16384 AND pronamespace = {oid}
), types AS MATERIALIZED (
    SELECT oid, xmin, ctid FROM pg_type WHERE oid >= 16384 AND typnamespace = {oid}
), ours (class, object) AS (
    SELECT 'pg_class'::regclass, oid FROM relations
    UNION ALL SELECT 'pg_proc'::regclass, oid FROM functions
    UNION ALL SELECT 'pg_type'::regclass, oid FROM types
    UNION ALL SELECT 'pg_namespace'::regclass, {oid}::oid
), parts (part) AS (
    SELECT format('schema %s %s', nspowner, nspacl) FROM pg_namespace WHERE oid = {oid}
    -- Emptying a table writes its row anew, so this one goes column by column.
    UNION ALL SELECT format(
        'relation %s %s %s %s %s %s %s %s %s %s', oid, relname, relowner, relacl, relam, reltablespace, reloptions,
        concat_ws(' ', relkind, relpersistence, relnatts, relchecks, relispartition, relreplident),
        CASE WHEN relkind = 'p' THEN reltuples END,  -- nothing makes this anew
        concat_ws(' ', relhasindex, relhasrules, relhastriggers, relrowsecurity, relforcerowsecurity))
      FROM relations
    UNION ALL SELECT format('function %s %s %s', oid, xmin, ctid) FROM functions
    UNION ALL SELECT format('type %s %s %s', oid, xmin, ctid) FROM types
    UNION ALL SELECT format('column %s %s %s', attrelid, t.xmin, t.ctid)
      FROM pg_attribute t JOIN relations r ON r.oid = t.attrelid AND t.attnum > 0
    UNION ALL SELECT format('default %s %s %s', t.oid, t.xmin, t.ctid)
      FROM pg_attrdef t JOIN relations r ON r.oid = t.adrelid
    UNION ALL SELECT format('index %s %s %s', t.indexrelid, t.xmin, t.ctid)
      FROM pg_index t JOIN relations r ON r.oid = t.indrelid
    UNION ALL SELECT format('constraint %s %s %s', t.oid, t.xmin, t.ctid)
      FROM pg_constraint t WHERE t.connamespace = {oid} OR t.confrelid IN (SELECT oid FROM relations)
    UNION ALL SELECT format('trigger %s %s %s', t.oid, t.xmin, t.ctid)
      FROM pg_trigger t JOIN relations r ON r.oid = t.tgrelid
    UNION ALL SELECT format('rule %s %s %s', t.oid, t.xmin, t.ctid)
      FROM pg_rewrite t JOIN relations r ON r.oid = t.ev_class
    UNION ALL SELECT format('policy %s %s %s', t.oid, t.xmin, t.ctid) FROM pg_policy t
    UNION ALL SELECT format('child %s %s %s', t.inhrelid, t.xmin, t.ctid)
      FROM pg_inherits t JOIN relations r ON r.oid = t.inhparent
    UNION ALL SELECT format('statistics %s %s %s', t.oid, t.xmin, t.ctid) FROM pg_statistic_ext t
    UNION ALL SELECT format('sequence %s %s %s', t.seqrelid, t.xmin, t.ctid)
      FROM pg_sequence t JOIN relations r ON r.oid = t.seqrelid
    UNION ALL SELECT format('comment %s %s %s', t.objoid, t.xmin, t.ctid)
      FROM pg_description t JOIN ours ON ours.class = t.classoid AND ours.object = t.objoid
    UNION ALL SELECT format('privileges %s %s %s', t.oid, t.xmin, t.ctid) FROM pg_default_acl t
    UNION ALL SELECT format('dependents %s', count(*))
      FROM pg_depend t JOIN ours ON ours.class = t.refclassid AND ours.object = t.refobjid
)
SELECT md5(string_agg(part, chr(10) ORDER BY part)) FROM parts
