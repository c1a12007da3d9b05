-- What the service over HTTP needs: who may call it (tokens), and what was asked of it (calls). Nobody but the owner of
-- the schema reads or writes these tables; allow_service opens the functions to the role that serves.

CREATE TABLE reconciler.api_tokens (
    -- The public half of the token; it may be told.
    id           text        PRIMARY KEY CHECK (id ~ '^[a-z2-7]{10,32}$'),
    name         text        NOT NULL CHECK (length(name) BETWEEN 1 AND 63),
    -- SHA-256 of the other half, which is written nowhere. That half is random and long, so that no slow hash is needed.
    digest       bytea       NOT NULL CHECK (length(digest) = 32),
    scopes       text[]      NOT NULL
                 CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['read', 'trigger', 'write', 'run']),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by   text        NOT NULL DEFAULT session_user,
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);
-- A name is free again once its token is revoked.
CREATE UNIQUE INDEX api_tokens_name_idx ON reconciler.api_tokens (name) WHERE revoked_at IS NULL;
COMMENT ON TABLE reconciler.api_tokens IS 'Who may call the service, and for what; the tokens themselves are not here';

CREATE TABLE reconciler.api_calls (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Null while it goes on, and for ever where the process or the connection ended in between.
    ended_at        timestamptz,
    token_id        text        NOT NULL,
    -- The token's name.
    caller          text        NOT NULL,
    action          text        NOT NULL,
    subject         text        NOT NULL,
    method          text        NOT NULL,
    -- Without the query.
    path            text        NOT NULL,
    -- Null without one, and once the key is free again.
    idempotency_key text        CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    request_digest  bytea,
    -- Whether what was done and the end of this row are one transaction: without an end nothing was done.
    is_atomic       boolean     NOT NULL,
    status          integer,
    answer          json,
    answer_headers  json
);
CREATE UNIQUE INDEX api_calls_key_idx ON reconciler.api_calls (token_id, idempotency_key)
 WHERE idempotency_key IS NOT NULL;
CREATE INDEX api_calls_at_idx ON reconciler.api_calls (at);
COMMENT ON TABLE reconciler.api_calls IS 'Every write that was asked of the service, and what it answered; kept for 90 days';

CREATE FUNCTION reconciler.find_api_token(token_id text)
RETURNS TABLE (
    id text, name text, digest bytea, scopes text[], created_at timestamptz, created_by text, expires_at timestamptz,
    revoked_at timestamptz, last_used_at timestamptz
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.id, t.name, t.digest, t.scopes, t.created_at, t.created_by, t.expires_at, t.revoked_at, t.last_used_at
      FROM reconciler.api_tokens t WHERE t.id = find_api_token.token_id
$$;

-- Every ten minutes at the most: it is a write for what is else a read. A server that takes no writes keeps none.
CREATE FUNCTION reconciler.note_api_token_use(token_id text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('transaction_read_only')::boolean THEN
        RETURN;
    END IF;
    UPDATE reconciler.api_tokens t SET last_used_at = clock_timestamp()
     WHERE t.id = note_api_token_use.token_id
       AND coalesce(t.last_used_at < clock_timestamp() - interval '10 minutes', true);
END
$$;

-- Write down that a call begins. state: begun; or, for a key that counts still, what became of the call that brought it
-- first: done (with its answer), running (or cut off, and nobody knows how far it came), other (another request).
CREATE FUNCTION reconciler.begin_api_call(
    token_id text, caller text, action text, subject text, method text, path text, idempotency_key text,
    request_digest bytea, is_atomic boolean,
    OUT id bigint, OUT state text, OUT status integer, OUT answer json, OUT answer_headers json
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    first_call reconciler.api_calls;
BEGIN
    DELETE FROM reconciler.api_calls c
     WHERE c.id IN (SELECT o.id FROM reconciler.api_calls o WHERE o.at < clock_timestamp() - interval '90 days'
                     ORDER BY o.at LIMIT 100 FOR UPDATE SKIP LOCKED);
    LOOP
        INSERT INTO reconciler.api_calls AS c
               (token_id, caller, action, subject, method, path, idempotency_key, request_digest, is_atomic)
        VALUES (begin_api_call.token_id, begin_api_call.caller, begin_api_call.action, begin_api_call.subject,
                begin_api_call.method, begin_api_call.path, begin_api_call.idempotency_key,
                begin_api_call.request_digest, begin_api_call.is_atomic)
            ON CONFLICT DO NOTHING
        RETURNING c.id INTO begin_api_call.id;
        IF begin_api_call.id IS NOT NULL THEN
            state := 'begun';
            RETURN;
        END IF;
        SELECT * INTO first_call FROM reconciler.api_calls c
         WHERE c.token_id = begin_api_call.token_id AND c.idempotency_key = begin_api_call.idempotency_key;
        CONTINUE WHEN NOT FOUND;
        -- A key is free again after a day. So is that of a call which ended without having done anything: whoever goes
        -- on with one holds its row, but for the moment before it begins.
        UPDATE reconciler.api_calls c SET idempotency_key = NULL
         WHERE c.id = (SELECT o.id FROM reconciler.api_calls o
                        WHERE o.id = first_call.id
                          AND (o.at < clock_timestamp() - interval '24 hours'
                               OR o.is_atomic AND o.ended_at IS NULL
                                  AND o.at < clock_timestamp() - interval '10 seconds')
                          FOR UPDATE SKIP LOCKED);
        CONTINUE WHEN FOUND;
        IF first_call.request_digest IS DISTINCT FROM begin_api_call.request_digest THEN
            state := 'other';
        ELSIF first_call.ended_at IS NULL THEN
            state := 'running';
        ELSE
            state := 'done';
            status := first_call.status;
            answer := first_call.answer;
            answer_headers := first_call.answer_headers;
        END IF;
        id := first_call.id;
        RETURN;
    END LOOP;
END
$$;

-- The first step of what a call does, in the same transaction. False: another call with the same key took it over.
CREATE FUNCTION reconciler.hold_api_call(id bigint, idempotency_key text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM reconciler.api_calls c
      WHERE c.id = hold_api_call.id AND c.ended_at IS NULL
        AND c.idempotency_key IS NOT DISTINCT FROM hold_api_call.idempotency_key
        FOR UPDATE;
    RETURN FOUND;
END
$$;

-- Write down how a call ended. keeps: whether its key goes on counting.
CREATE FUNCTION reconciler.end_api_call(
    id bigint, status integer, answer json, answer_headers json, keeps boolean
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE reconciler.api_calls c
       SET ended_at = clock_timestamp(), status = end_api_call.status, answer = end_api_call.answer,
           answer_headers = end_api_call.answer_headers,
           idempotency_key = CASE WHEN end_api_call.keeps THEN c.idempotency_key END
     WHERE c.id = end_api_call.id AND c.ended_at IS NULL
$$;

-- The newest first; before: only those that began before this one.
CREATE FUNCTION reconciler.list_api_calls(before bigint, max integer)
RETURNS TABLE (
    id bigint, at timestamptz, ended_at timestamptz, token_id text, caller text, action text, subject text, method text,
    path text, idempotency_key text, status integer
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.id, c.at, c.ended_at, c.token_id, c.caller, c.action, c.subject, c.method, c.path, c.idempotency_key,
           c.status
      FROM reconciler.api_calls c
     WHERE c.id < coalesce(list_api_calls.before, 9223372036854775807)
     ORDER BY c.id DESC
     LIMIT list_api_calls.max
$$;

CREATE FUNCTION reconciler.allow_service(role name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format(
        'GRANT EXECUTE ON FUNCTION reconciler.find_api_token, reconciler.note_api_token_use,'
        ' reconciler.begin_api_call, reconciler.hold_api_call, reconciler.end_api_call, reconciler.list_api_calls'
        ' TO %I', role);
END
$$;
COMMENT ON FUNCTION reconciler.allow_service IS 'Let a role find out who calls the service, and write down what is asked';

REVOKE EXECUTE ON FUNCTION
    reconciler.find_api_token, reconciler.note_api_token_use, reconciler.begin_api_call, reconciler.hold_api_call,
    reconciler.end_api_call, reconciler.list_api_calls, reconciler.allow_service
FROM PUBLIC;
