-- name: find_vault
SELECT to_regclass('vault.decrypted_secrets') IS NOT NULL;

-- name: read_vault_secret
SELECT decrypted_secret::text FROM vault.decrypted_secrets WHERE name = %(name)s LIMIT 1;
