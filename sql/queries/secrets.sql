-- name: create_brought_secrets
CREATE TEMPORARY TABLE brought_secrets (name text, value text, vault_name text) ON COMMIT DROP;

-- name: copy_brought_secrets
COPY pg_temp.brought_secrets (name, value, vault_name) FROM STDIN;

-- name: put_secrets
INSERT INTO reconciler.secrets AS s (name, value, vault_name)
SELECT name, value, vault_name FROM pg_temp.brought_secrets
    ON CONFLICT (name) DO UPDATE
   SET value = excluded.value, vault_name = excluded.vault_name, updated_at = now()
 WHERE (s.value, s.vault_name) IS DISTINCT FROM (excluded.value, excluded.vault_name)
RETURNING s.name;

-- name: drop_brought_secrets
DROP TABLE pg_temp.brought_secrets;
