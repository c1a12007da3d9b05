-- What an endpoint answers is kept where it is no success, for people to read. An endpoint that tells the token that
-- it got would so bring it into the log: it is taken out.

-- Take the value of a secret out of a text, as it is and as JSON spells it. Where the secret cannot be read any more,
-- nothing of the text is shown, since it may hold the value. A text stays as it is where there is no secret.
CREATE FUNCTION reconciler.hide_secret(content text, secret text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_value text;
BEGIN
    IF content IS NULL OR secret IS NULL THEN
        RETURN content;
    END IF;
    found_value := reconciler.read_secret(secret);
    RETURN replace(replace(content, found_value, '***'), btrim(to_json(found_value)::text, '"'), '***');
EXCEPTION WHEN OTHERS THEN
    RETURN '(not shown, since the token that was sent cannot be read any more)';
END
$$;

REVOKE EXECUTE ON FUNCTION reconciler.hide_secret FROM PUBLIC;

CREATE OR REPLACE FUNCTION reconciler.send_request(
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
    content := CASE WHEN problem IS NOT NULL
                    THEN left(reconciler.hide_secret(content, request #>> '{token,secret}'), 2000) END;
END
$$;

CREATE OR REPLACE FUNCTION reconciler.collect_answers(run_id bigint DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    run reconciler.cron_execution_log;
    answer record;
    problem text;
    secret text;
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
        SELECT reconciler.find_request(d) #>> '{token,secret}' INTO secret
          FROM reconciler.definitions d WHERE d.id = run.definition_id;
        IF NOT FOUND THEN
            secret := '';  -- there may have been one
        END IF;
        answer.content := left(reconciler.hide_secret(answer.content, secret), 2000);
        answer.error_msg := reconciler.hide_secret(answer.error_msg, secret);
        problem := CASE WHEN answer.timed_out THEN coalesce(answer.error_msg, 'no answer in time')
                        WHEN answer.status_code IS NULL THEN coalesce(answer.error_msg, 'no answer')
                        ELSE reconciler.judge_answer(answer.status_code, answer.expect) END;
        PERFORM reconciler.end_run(run,
            CASE WHEN problem IS NULL THEN 'succeeded' WHEN answer.timed_out THEN 'timed_out' ELSE 'failed' END,
            error_sqlstate => CASE WHEN problem IS NOT NULL THEN '38000' END, error_message => problem,
            error_detail => CASE WHEN problem IS NOT NULL THEN answer.content END,
            response_status => answer.status_code);
    END LOOP;
    RETURN NULL;
END
$$;
