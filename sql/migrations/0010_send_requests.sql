-- Requests sent from the database, through pg_net where it is, else through the extension http (pgsql-http).
--
-- pg_net sends after the commit and holds neither a backend nor a snapshot; the tick reads its answer. http waits for
-- the answer in the run's own backend. Neither takes a 4xx or 5xx for an error: that is judged here. Secrets are read
-- at call time, with the owner's rights, and given on as parameters only.

CREATE FUNCTION reconciler.read_secret(name text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    secret reconciler.secrets;
    found_value text;
BEGIN
    SELECT * INTO secret FROM reconciler.secrets s WHERE s.name = read_secret.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the secret % is not on this target', name USING ERRCODE = 'undefined_object',
            HINT = 'Set its variable or file where reconciler apply runs, and apply again.';
    END IF;
    IF secret.vault_name IS NULL THEN
        RETURN secret.value;
    END IF;
    BEGIN
        EXECUTE 'SELECT decrypted_secret FROM vault.decrypted_secrets WHERE name = $1'
           INTO found_value USING secret.vault_name;
    EXCEPTION WHEN undefined_table OR invalid_schema_name OR insufficient_privilege THEN
        RAISE EXCEPTION 'the secret % cannot be read from the vault: %', name, SQLERRM USING ERRCODE = 'undefined_object',
            HINT = format('The role %I needs SELECT on vault.decrypted_secrets.', current_user);
    END;
    IF found_value IS NULL THEN
        RAISE EXCEPTION 'the secret % is not in the vault', name USING ERRCODE = 'undefined_object',
            HINT = format('It is looked for under the name %L.', secret.vault_name);
    END IF;
    RETURN found_value;
END
$$;

-- The schema of the extension http, or null where it is not installed.
CREATE FUNCTION reconciler.find_http() RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT n.nspname::text FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
     WHERE e.extname = 'http'
$$;

-- Whether pg_net is there, always in the schema net. What is called there gets the owner's rights and secrets: it has
-- to be the extension's, or that of the owner or of a superuser, and nobody's who may just make schemas.
CREATE FUNCTION reconciler.has_pg_net() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE p.oid = to_regprocedure('net.http_post(text,jsonb,jsonb,jsonb,integer)')
           AND (EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                         WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
                           AND e.extname = 'pg_net')
                OR NOT EXISTS (SELECT FROM pg_roles r
                                WHERE r.oid IN (p.proowner, n.nspowner)
                                  AND NOT (r.rolsuper OR r.rolname = current_user))))
$$;

-- Why an answer is no success, by what was expected: a class of statuses or a list; null where it is one.
CREATE FUNCTION reconciler.judge_answer(status integer, expect json) RETURNS text
LANGUAGE sql IMMUTABLE
AS $$
    SELECT CASE
        WHEN json_typeof(expect) = 'array' THEN
            CASE WHEN status::text NOT IN (SELECT json_array_elements_text(expect))
                 THEN format('the endpoint answered %s, not one of %s', status, expect) END
        WHEN status / 100 <> left(coalesce(expect #>> '{}', '2xx'), 1)::integer
        THEN format('the endpoint answered %s, not %s', status, coalesce(expect #>> '{}', '2xx')) END
$$;

-- Send by pgsql-http and wait for the answer; an error when there is none in time.
CREATE FUNCTION reconciler.send_waiting(
    method text, url text, headers jsonb, content_type text, content text, timeout interval,
    OUT status integer, OUT answer text
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
-- As a message for debugging (DEBUG2) the extension tells every header and address, also to the caller.
SET client_min_messages = error
AS $$
DECLARE
    place text := reconciler.find_http();
    milliseconds text := greatest(1, round(extract(epoch FROM timeout) * 1000))::bigint::text;
BEGIN
    IF place IS NULL THEN
        RAISE EXCEPTION 'this database cannot send requests' USING ERRCODE = 'feature_not_supported',
            HINT = 'As an administrator: CREATE EXTENSION http, or pg_net.';
    END IF;
    -- A body of this session may have set a proxy. Every argument has the type that the function takes: nobody's
    -- function of the same name fits better.
    EXECUTE format('SELECT %1$I.http_reset_curlopt(),'
                   '       %1$I.http_set_curlopt(''CURLOPT_TIMEOUT_MS''::varchar, $1::varchar),'
                   '       %1$I.http_set_curlopt(''CURLOPT_CONNECTTIMEOUT_MS''::varchar, $1::varchar)', place)
      USING milliseconds;
    EXECUTE format('SELECT r.status, r.content FROM %1$I.http(ROW($1, $2, ARRAY('
                   '           SELECT %1$I.http_header(key::varchar, value::varchar) FROM jsonb_each_text($3)),'
                   '       $4, $5)::%1$I.http_request) r', place)
       INTO status, answer USING method, url, headers, content_type, content;
EXCEPTION WHEN OTHERS THEN
    -- curl's own words, which no setting translates; a real cancelling is not among OTHERS.
    IF SQLERRM ~* 'timed? ?out' THEN
        RAISE EXCEPTION 'no answer within %', timeout USING ERRCODE = 'query_canceled', DETAIL = SQLERRM;
    END IF;
    RAISE;
END
$$;

CREATE FUNCTION reconciler.send_request(
    run_id bigint, token bytea, OUT status integer, OUT problem text, OUT content text, OUT request_id bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    request json;
    method text;
    headers jsonb;
    content_type text;
    payload text;
    patience interval;
    chain bigint;
    is_worker boolean;
BEGIN
    SELECT reconciler.find_request(d), coalesce(l.chain_id, l.id), d.kind = 'worker' INTO request, chain, is_worker
      FROM reconciler.cron_execution_log l JOIN reconciler.definitions d ON d.id = l.definition_id
     WHERE l.id = send_request.run_id AND l.status = 'running'
       AND send_request.token = reconciler.make_token(send_request.run_id);
    IF request IS NULL THEN
        RAISE EXCEPTION 'run % has no request to send here', run_id USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    method := coalesce(request ->> 'method', 'POST');
    patience := reconciler.read_duration(coalesce(request ->> 'timeout', '30s'));
    headers := coalesce((request -> 'headers')::jsonb, '{}');
    content_type := coalesce(
        (SELECT h.value FROM jsonb_each_text(headers) AS h WHERE lower(h.key) = 'content-type'),
        CASE WHEN json_typeof(request -> 'body') = 'string' THEN 'text/plain' ELSE 'application/json' END);
    payload := CASE WHEN json_typeof(request -> 'body') = 'string' THEN request ->> 'body'
                    WHEN request -> 'body' IS NOT NULL THEN (request -> 'body')::text
                    WHEN method IN ('POST', 'PUT', 'PATCH') THEN '{}' END;
    headers := (SELECT coalesce(jsonb_object_agg(h.key, h.value) FILTER (WHERE lower(h.key) <> 'content-type'), '{}')
                  FROM jsonb_each_text(headers) AS h)
        -- The same for every attempt, so that the endpoint can tell a second try from a second order.
        || jsonb_build_object('Idempotency-Key', 'reconciler-run-' || chain);
    IF request #>> '{token,secret}' IS NOT NULL THEN
        headers := headers || jsonb_build_object(
            'Authorization', 'Bearer ' || reconciler.read_secret(request #>> '{token,secret}'));
    END IF;

    -- pg_net knows these three, and bodies of JSON only.
    IF reconciler.has_pg_net() AND (method IN ('GET', 'DELETE') AND payload IS NULL
                              OR method = 'POST' AND content_type = 'application/json') THEN
        IF method = 'POST' THEN
            EXECUTE 'SELECT net.http_post(url := $1, body := $2, headers := $3, timeout_milliseconds := $4)'
               INTO request_id
              USING request ->> 'url', payload::jsonb,
                    headers || '{"Content-Type": "application/json"}', (extract(epoch FROM patience) * 1000)::integer;
        ELSE
            EXECUTE format('SELECT net.%I(url := $1, headers := $2, timeout_milliseconds := $3)',
                           'http_' || lower(method))
               INTO request_id USING request ->> 'url', headers, (extract(epoch FROM patience) * 1000)::integer;
        END IF;
        UPDATE reconciler.cron_execution_log l
           SET request_id = send_request.request_id,
               -- Its worker shows the answers of a batch together, and pauses between two. A push worker has no
               -- limit but that of its request.
               deadline_at = least(CASE WHEN NOT is_worker THEN l.deadline_at END,
                                   clock_timestamp() + patience + interval '30 seconds')
         WHERE l.id = send_request.run_id;
        RETURN;
    END IF;
    SELECT s.status, s.answer INTO status, content
      FROM reconciler.send_waiting(method, request ->> 'url', headers, content_type, payload, patience) AS s;
    problem := reconciler.judge_answer(status, request -> 'expect');
    content := CASE WHEN problem IS NOT NULL THEN left(content, 2000) END;
END
$$;

-- End the runs whose request pg_net has an answer for, or one of them. No answer until the deadline is the tick's to
-- judge.
CREATE FUNCTION reconciler.collect_answers(run_id bigint DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    run reconciler.cron_execution_log;
    answer record;
    problem text;
BEGIN
    FOR run IN SELECT * FROM reconciler.cron_execution_log l
                WHERE l.status = 'running' AND l.request_id IS NOT NULL
                  AND (collect_answers.run_id IS NULL OR l.id = collect_answers.run_id)
                ORDER BY l.id LIMIT 500 FOR UPDATE SKIP LOCKED
    LOOP
        -- The index there is on created alone.
        EXECUTE 'SELECT r.status_code, r.content, r.timed_out, r.error_msg, d.spec #> ''{http,expect}'' AS expect'
                '  FROM net._http_response r LEFT JOIN reconciler.definitions d ON d.id = $3'
                ' WHERE r.id = $1 AND r.created >= $2'
           INTO answer USING run.request_id, run.run_at - interval '1 minute', run.definition_id;
        CONTINUE WHEN answer IS NULL OR num_nonnulls(answer.status_code, answer.timed_out, answer.error_msg) = 0;
        problem := CASE WHEN answer.timed_out THEN coalesce(answer.error_msg, 'no answer in time')
                        WHEN answer.status_code IS NULL THEN coalesce(answer.error_msg, 'no answer')
                        ELSE reconciler.judge_answer(answer.status_code, answer.expect) END;
        PERFORM reconciler.end_run(run,
            CASE WHEN problem IS NULL THEN 'succeeded' WHEN answer.timed_out THEN 'timed_out' ELSE 'failed' END,
            error_sqlstate => CASE WHEN problem IS NOT NULL THEN '38000' END, error_message => problem,
            error_detail => CASE WHEN problem IS NOT NULL THEN left(answer.content, 2000) END,
            response_status => answer.status_code);
    END LOOP;
    RETURN NULL;
END
$$;

-- ------------------------------------------------------------------------------------------------ alerts

-- Take one message that a channel wants from the database itself. attempts is what it is finished with.
CREATE FUNCTION reconciler.claim_delivery(OUT delivery_id bigint, OUT attempts integer)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE reconciler.alert_deliveries d
       SET attempts = d.attempts + 1, claimed_until = clock_timestamp() + interval '1 minute'
     WHERE d.id = (
           SELECT o.id FROM reconciler.alert_deliveries o
             JOIN reconciler.definitions c ON c.name = o.channel AND c.kind = 'channel'
                                          AND c.spec ->> 'deliver' = 'database'
            WHERE reconciler.is_runtime() AND o.status = 'pending' AND o.due_at <= clock_timestamp()
              AND (o.claimed_until IS NULL OR o.claimed_until <= clock_timestamp())
            ORDER BY o.due_at, o.id LIMIT 1 FOR UPDATE OF o SKIP LOCKED)
    RETURNING d.id, d.attempts
$$;

-- Post it as {"text": …}, which Slack, Mattermost, Teams and Google Chat take.
CREATE FUNCTION reconciler.send_delivery(delivery_id bigint, attempts integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    message record;
    problem text;
BEGIN
    SELECT a.kind, a.message, a.opened_at, o.reminder, c.spec #>> '{url,secret}' AS secret INTO message
      FROM reconciler.alert_deliveries o
      JOIN reconciler.alerts a ON a.id = o.alert_id
      JOIN reconciler.definitions c ON c.name = o.channel
     WHERE o.id = send_delivery.delivery_id AND o.attempts = send_delivery.attempts AND o.status = 'pending'
       AND reconciler.is_runtime();
    IF NOT FOUND THEN
        RETURN;
    END IF;
    BEGIN
        SELECT reconciler.judge_answer(s.status, NULL) INTO problem
          FROM reconciler.send_waiting('POST', reconciler.read_secret(message.secret), '{}', 'application/json',
                   jsonb_build_object('text', format('%s%s: %s (%s, since %s UTC)',
                       CASE WHEN message.reminder > 0 THEN 'Reminder: ' ELSE '' END, upper(message.kind),
                       message.message, current_database(),
                       to_char(message.opened_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')))::text,
                   interval '5 seconds') AS s;
    EXCEPTION WHEN query_canceled OR OTHERS THEN
        -- curl may repeat the address, which is a secret.
        problem := CASE WHEN SQLSTATE IN ('42704', '0A000') THEN SQLERRM ELSE 'no answer from the channel''s address' END;
    END;
    UPDATE reconciler.alert_deliveries o
       SET status = CASE WHEN problem IS NULL THEN 'sent' WHEN o.attempts >= 20 THEN 'failed' ELSE 'pending' END,
           sent_at = CASE WHEN problem IS NULL THEN clock_timestamp() END,
           last_error = problem, claimed_until = NULL,
           due_at = CASE WHEN problem IS NULL THEN o.due_at ELSE clock_timestamp()
               + reconciler.next_wait(o.attempts, interval '30 seconds', 2, interval '1 hour', random()) END
     WHERE o.id = send_delivery.delivery_id AND o.attempts = send_delivery.attempts AND o.status = 'pending';
END
$$;

-- Send what is due to such channels: claimed in one transaction, sent in the next, so that a crash in between sends
-- again and never forgets.
CREATE PROCEDURE reconciler.deliver_alerts(until timestamptz)
LANGUAGE plpgsql
AS $$
DECLARE
    claimed record;
BEGIN
    WHILE pg_catalog.clock_timestamp() < until LOOP
        SELECT * INTO claimed FROM reconciler.claim_delivery();
        COMMIT;
        EXIT WHEN claimed.delivery_id IS NULL;
        PERFORM reconciler.send_delivery(claimed.delivery_id, claimed.attempts);
        COMMIT;
    END LOOP;
END
$$;

REVOKE EXECUTE ON FUNCTION
    reconciler.read_secret, reconciler.send_waiting, reconciler.collect_answers
FROM PUBLIC;
