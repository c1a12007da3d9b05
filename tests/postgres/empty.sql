-- Empties all tables of the schema with the number clean.kept, and leaves them as they were when they were made.
DO $empty$
DECLARE
    kept oid := current_setting('clean.kept')::oid;
    grown text;
    one record;
BEGIN
    -- Neither triggers nor foreign keys have a say.
    SET LOCAL session_replication_role = replica;
    SET LOCAL client_min_messages = error;
    -- A page or two of rows that are gone change nothing, and TRUNCATE is dear: it makes every file anew.
    FOR one IN
        SELECT c.oid::regclass AS name, c.oid,
               c.reltuples <> -1
               OR pg_table_size(c.oid) > 65536
               OR pg_relation_size(c.reltoastrelid) > 0
               OR EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND pg_relation_size(indexrelid) > 16384)
               OR EXISTS (SELECT FROM pg_statistic WHERE starelid = c.oid) AS has_grown
          FROM pg_class AS c
         WHERE c.relnamespace = kept AND c.relkind = 'r' AND (pg_relation_size(c.oid) > 0 OR c.reltuples <> -1)
    LOOP
        IF one.has_grown THEN
            grown := concat_ws(', ', grown, one.name);
            DELETE FROM pg_statistic WHERE starelid = one.oid;
        ELSE
            EXECUTE format('DELETE FROM %s', one.name);
        END IF;
    END LOOP;
    IF grown IS NOT NULL THEN
        EXECUTE 'TRUNCATE ' || grown || ' CASCADE';
    END IF;
    PERFORM setval(s.seqrelid::regclass, s.seqstart, false)
       FROM pg_sequence AS s JOIN pg_class AS c ON c.oid = s.seqrelid
      WHERE c.relnamespace = kept;
END
$empty$;
