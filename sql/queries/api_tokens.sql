-- name: find_token
SELECT * FROM reconciler.find_api_token(%(id)s);

-- name: note_use
SELECT reconciler.note_api_token_use(%(id)s);

-- name: create_token
INSERT INTO reconciler.api_tokens (id, name, digest, scopes, expires_at)
VALUES (%(id)s, %(name)s, %(digest)s, %(scopes)s, %(expires_at)s)
    ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING
RETURNING id, name, digest, scopes, created_at, created_by, expires_at, revoked_at, last_used_at;

-- name: list_tokens
SELECT id, name, digest, scopes, created_at, created_by, expires_at, revoked_at, last_used_at
  FROM reconciler.api_tokens
 ORDER BY revoked_at IS NOT NULL, name, created_at DESC, id;

-- name: revoke_token
-- By its id, or by its name, which a token that is not revoked has for itself.
UPDATE reconciler.api_tokens t SET revoked_at = clock_timestamp()
 WHERE t.revoked_at IS NULL
   AND t.id = (SELECT o.id FROM reconciler.api_tokens o
                WHERE o.revoked_at IS NULL AND (o.id = %(token)s OR o.name = %(token)s)
                ORDER BY o.id <> %(token)s LIMIT 1)
RETURNING id, name, digest, scopes, created_at, created_by, expires_at, revoked_at, last_used_at;
