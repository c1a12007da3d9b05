-- name: find_revisions
SELECT to_regclass('reconciler.revisions') IS NOT NULL;

-- name: list_revisions
-- The newest first. What an apply had to leave out for lack of rights stands in no change.
SELECT r.id, r.owner, r.target, r.applied_at, r.applied_by, r.actor, r.commit, r.release, r.summary,
       ARRAY(SELECT c ->> 'action' FROM json_array_elements(r.changes) WITH ORDINALITY AS t (c, n) ORDER BY n) AS actions,
       ARRAY(SELECT c ->> 'name' FROM json_array_elements(r.changes) WITH ORDINALITY AS t (c, n) ORDER BY n) AS names
  FROM reconciler.revisions r
 WHERE (%(owner)s::text IS NULL OR r.owner = %(owner)s) AND (%(before)s::bigint IS NULL OR r.id < %(before)s)
 ORDER BY r.id DESC
 LIMIT %(limit)s;

-- name: read_revision
SELECT r.id, r.owner, r.target, r.applied_at, r.applied_by, r.actor, r.commit, r.release, r.summary,
       ARRAY(SELECT c ->> 'action' FROM json_array_elements(r.changes) WITH ORDINALITY AS t (c, n) ORDER BY n) AS actions,
       ARRAY(SELECT c ->> 'name' FROM json_array_elements(r.changes) WITH ORDINALITY AS t (c, n) ORDER BY n) AS names,
       r.changes
  FROM reconciler.revisions r
 WHERE r.id = %(id)s;

-- name: list_changes_of
-- Of a name, and of what it was renamed from; the first releases kept that name in the entry alone.
SELECT r.id, r.owner, r.target, r.applied_at, r.applied_by, r.actor, r.commit, r.release, r.summary,
       ARRAY[c ->> 'action'] AS actions, ARRAY[c ->> 'name'] AS names, c AS change
  FROM reconciler.revisions r, json_array_elements(r.changes) WITH ORDINALITY AS t (c, n)
 WHERE c ->> 'name' = %(name)s
    OR coalesce(c ->> 'renamed_from', CASE WHEN c ->> 'reason' = 'renamed' THEN c #>> '{before,entry,name}' END)
       = %(name)s
 ORDER BY r.id DESC, c ->> 'name' = %(name)s DESC, n DESC;

-- name: list_known_names
SELECT DISTINCT c ->> 'name' AS name FROM reconciler.revisions r, json_array_elements(r.changes) AS c;

-- name: find_gaps
-- Revisions whose predecessor was deleted.
SELECT r.id FROM reconciler.revisions r
 WHERE r.previous <> 0 AND NOT EXISTS (SELECT FROM reconciler.revisions p WHERE p.id = r.previous)
 ORDER BY r.id LIMIT 1;

-- name: read_changes
SELECT r.id, r.owner, r.changes FROM reconciler.revisions r WHERE r.owner = %(owner)s ORDER BY r.id;

-- name: read_definitions
-- Without those that stand still in their grace; in a table of an earlier release none does.
SELECT d.kind, d.name, d.spec AS document, d.digest, d.source, d.schedule, d.command, d.database, d.username, d.active
  FROM (SELECT NULL::timestamptz AS retired_until) AS none
 CROSS JOIN LATERAL (
       SELECT kind, name, spec, digest, source, schedule, command, database, username, active, owner, retired_until
         FROM reconciler.definitions) AS d
 WHERE d.owner = %(owner)s AND d.retired_until IS NULL;

-- name: read_other_owners
SELECT name, owner FROM reconciler.definitions WHERE owner <> %(owner)s;

-- name: read_now
SELECT now();
