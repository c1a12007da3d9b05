-- What the runtime keeps: how runs behave (policies), how jobs fare (job_states), what is to be started besides
-- the entries (starts), pauses, secrets, and alerts with their deliveries.

-- A job's own trigger may be that others succeeded; and a run now says what it was for.
ALTER TABLE reconciler.cron_execution_log
    ADD COLUMN attempt         integer NOT NULL DEFAULT 1 CHECK (attempt > 0),
    -- The first run of the chain that this attempt belongs to; null for a first attempt.
    ADD COLUMN chain_id        bigint,
    -- The time that a run makes up for or was put off from; null for one that an entry fired.
    ADD COLUMN due_at          timestamptz,
    ADD COLUMN start_id        bigint,
    -- What the run holds while it goes on; kept here because a rename changes the definition's.
    ADD COLUMN lock_key        bigint,
    ADD COLUMN deadline_at     timestamptz,
    -- Somebody wants it to end: written before its backend is cancelled, so that the run knows why.
    ADD COLUMN stop_reason     text CHECK (stop_reason IN ('timed_out', 'cancelled')),
    ADD COLUMN stop_at         timestamptz,
    ADD COLUMN stop_by         text,
    ADD COLUMN request_id      bigint,
    ADD COLUMN response_status integer,
    ADD COLUMN queued_job_id   bigint,
    -- Its work was put on a queue: the run goes on without a backend until that queued job is finished.
    ADD COLUMN handed_over     boolean NOT NULL DEFAULT false;
UPDATE reconciler.cron_execution_log l SET lock_key = d.lock_key
  FROM reconciler.definitions d WHERE d.id = l.definition_id AND l.status = 'running';
CREATE INDEX cron_execution_log_start_idx ON reconciler.cron_execution_log (start_id) WHERE start_id IS NOT NULL;

CREATE TABLE reconciler.policies (
    name            text     PRIMARY KEY REFERENCES reconciler.definitions (name) ON UPDATE CASCADE ON DELETE CASCADE,
    timeout         interval,
    concurrency     text     NOT NULL CHECK (concurrency IN ('skip', 'wait', 'allow')),
    catch_up        text     NOT NULL CHECK (catch_up IN ('none', 'one', 'all')),
    retries         integer  NOT NULL CHECK (retries >= 0),
    backoff_initial interval NOT NULL,
    backoff_factor  numeric  NOT NULL,
    backoff_max     interval NOT NULL,
    jitter          boolean  NOT NULL,
    alert_after     integer  NOT NULL CHECK (alert_after > 0),
    alert_on        text[]   NOT NULL,
    channels        text[]   NOT NULL,
    slow_limit      interval,
    slow_factor     numeric,
    remind          interval NOT NULL,
    after           text[]   NOT NULL,
    -- The zone in which pg_cron reads schedules, as apply saw it: ordinary roles cannot ask the server.
    zone            text     NOT NULL DEFAULT 'GMT',
    -- That of the definition it was copied from; '' for a row that somebody edited.
    digest          text     NOT NULL
);
COMMENT ON TABLE reconciler.policies IS 'How the runs of each managed job or worker behave; apply copies it from the definition';

-- Who waits for a job: asked at the end of each good run, so it has an index of its own kind.
CREATE TABLE reconciler.dependencies (
    after_name text NOT NULL,
    job_name   text NOT NULL REFERENCES reconciler.policies (name) ON UPDATE CASCADE ON DELETE CASCADE,
    PRIMARY KEY (after_name, job_name)
);
COMMENT ON TABLE reconciler.dependencies IS 'The column after of the policies, row by row';

CREATE FUNCTION reconciler.list_dependencies() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM reconciler.dependencies d WHERE d.job_name = NEW.name AND d.after_name <> ALL (NEW.after);
    INSERT INTO reconciler.dependencies (after_name, job_name)
    SELECT other, NEW.name FROM unnest(NEW.after) AS other
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
CREATE TRIGGER list_dependencies AFTER INSERT ON reconciler.policies
    FOR EACH ROW WHEN (NEW.after <> '{}') EXECUTE FUNCTION reconciler.list_dependencies();
CREATE TRIGGER list_changed_dependencies AFTER UPDATE OF after ON reconciler.policies
    FOR EACH ROW WHEN (NEW.after IS DISTINCT FROM OLD.after) EXECUTE FUNCTION reconciler.list_dependencies();

CREATE FUNCTION reconciler.mark_edited() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.digest := '';
    RETURN NEW;
END
$$;
CREATE TRIGGER mark_edited BEFORE UPDATE ON reconciler.policies
    FOR EACH ROW WHEN (NEW IS DISTINCT FROM OLD AND NEW.digest = OLD.digest AND NEW.zone = OLD.zone
                       AND NEW.name = OLD.name)
    EXECUTE FUNCTION reconciler.mark_edited();

CREATE VIEW reconciler.declared_policies AS
SELECT d.name,
       reconciler.read_duration(coalesce(s ->> 'timeout', CASE d.kind WHEN 'worker' THEN '30s' END)) AS timeout,
       coalesce(s ->> 'concurrency', 'skip')                                          AS concurrency,
       coalesce(s ->> 'catch_up', 'none')                                             AS catch_up,
       coalesce((s #>> '{on_failure,retries}')::integer, 0)                           AS retries,
       reconciler.read_duration(coalesce(s #>> '{on_failure,backoff,initial}', '10s')) AS backoff_initial,
       coalesce((s #>> '{on_failure,backoff,factor}')::numeric, 2)                    AS backoff_factor,
       reconciler.read_duration(coalesce(s #>> '{on_failure,backoff,max}', '1h'))     AS backoff_max,
       coalesce((s #>> '{on_failure,jitter}')::boolean, true)                         AS jitter,
       coalesce((s #>> '{alert,after}')::integer, 1)                                  AS alert_after,
       -- A limit for slow runs asks to be told of them.
       CASE WHEN s #> '{alert,on}' IS NOT NULL
            THEN ARRAY(SELECT jsonb_array_elements_text(s #> '{alert,on}'))
            ELSE ARRAY['failed', 'missed', 'lost', 'recovered']
                 || CASE WHEN s #> '{alert,slow}' IS NULL THEN '{}' ELSE ARRAY['slow'] END
       END                                                                            AS alert_on,
       CASE WHEN s #> '{alert,channels}' IS NOT NULL
            THEN ARRAY(SELECT jsonb_array_elements_text(s #> '{alert,channels}'))
            ELSE '{}' END                                                             AS channels,
       CASE WHEN s #>> '{alert,slow}' NOT LIKE '%x'
            THEN reconciler.read_duration(s #>> '{alert,slow}') END                   AS slow_limit,
       CASE WHEN s #>> '{alert,slow}' LIKE '%x'
            THEN rtrim(s #>> '{alert,slow}', 'x')::numeric END                        AS slow_factor,
       reconciler.read_duration(coalesce(s #>> '{alert,remind}', '1d'))               AS remind,
       CASE WHEN s -> 'after' IS NOT NULL
            THEN ARRAY(SELECT jsonb_array_elements_text(s -> 'after'))
            ELSE '{}' END                                                             AS after
  FROM reconciler.definitions d
       -- Read once, not once for each column.
 CROSS JOIN LATERAL (SELECT d.spec::jsonb AS s OFFSET 0) AS j
 WHERE d.kind IN ('job', 'worker') AND coalesce(s ->> 'mode', 'managed') = 'managed';

CREATE TABLE reconciler.job_states (
    name                 text     PRIMARY KEY REFERENCES reconciler.definitions (name) ON UPDATE CASCADE ON DELETE CASCADE,
    -- When the entry should have fired next, as far as the log was compared with the schedule; null for never.
    next_due_at          timestamptz,
    -- The zone and the schedule that this was computed for.
    basis                text,
    last_run_id          bigint,
    last_run_at          timestamptz,
    last_status          text,
    last_error           text,
    last_duration        interval,
    last_succeeded_at    timestamptz,
    consecutive_failures integer  NOT NULL DEFAULT 0,
    total_runs           bigint   NOT NULL DEFAULT 0,
    failed_runs          bigint   NOT NULL DEFAULT 0,
    missed_runs          bigint   NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
COMMENT ON TABLE reconciler.job_states IS 'How each managed job fares, kept up as its runs end';
CREATE INDEX job_states_due_idx ON reconciler.job_states (next_due_at) WHERE next_due_at IS NOT NULL;

CREATE TABLE reconciler.starts (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_name      text        NOT NULL REFERENCES reconciler.definitions (name) ON UPDATE CASCADE ON DELETE CASCADE,
    trigger       text        NOT NULL
                  CHECK (trigger IN ('schedule', 'manual', 'retry', 'dependency', 'catch_up')),
    due_at        timestamptz NOT NULL,
    -- The time that it makes up for, or that of a one-time job.
    scheduled_at  timestamptz,
    attempt       integer     NOT NULL DEFAULT 1,
    chain_id      bigint,
    queued_job_id bigint,
    requested_by  text        NOT NULL DEFAULT session_user,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE reconciler.starts IS 'Runs to be started besides those that entries fire: a runner takes them when due';
CREATE UNIQUE INDEX starts_key ON reconciler.starts (job_name, trigger, coalesce(scheduled_at, '-infinity'));
CREATE INDEX starts_due_idx ON reconciler.starts (due_at);

CREATE TABLE reconciler.pauses (
    job_name   text        PRIMARY KEY REFERENCES reconciler.definitions (name) ON UPDATE CASCADE ON DELETE CASCADE,
    paused_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Null: until somebody resumes it.
    until      timestamptz,
    reason     text        NOT NULL DEFAULT '',
    paused_by  text        NOT NULL DEFAULT session_user
);
COMMENT ON TABLE reconciler.pauses IS 'Managed jobs that skip their runs for a while; no part of the specs';

-- Row-level security without a policy: also a role that was granted SELECT on all tables sees no value.
CREATE TABLE reconciler.secrets (
    name       text        PRIMARY KEY,
    value      text,
    -- The name in Supabase Vault, where the value is read at each call.
    vault_name text,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK (num_nonnulls(value, vault_name) = 1)
);
COMMENT ON TABLE reconciler.secrets IS 'Secrets for requests sent from the database; only the owner reads them';
ALTER TABLE reconciler.secrets ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON reconciler.secrets FROM PUBLIC;

-- The key of the tokens that runs are ended with: who cannot read it cannot end a run in another's name.
CREATE TABLE reconciler.run_key (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    key      bytea   NOT NULL
);
ALTER TABLE reconciler.run_key ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON reconciler.run_key FROM PUBLIC;
INSERT INTO reconciler.run_key (key)
VALUES (sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')));

CREATE TABLE reconciler.alerts (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_name     text        NOT NULL,
    kind         text        NOT NULL
                 CHECK (kind IN ('failed', 'missed', 'slow', 'lost', 'recovered', 'drift', 'test')),
    run_id       bigint,
    message      text        NOT NULL,
    details      jsonb       NOT NULL DEFAULT '{}',
    channels     text[]      NOT NULL DEFAULT '{}',
    remind       interval    NOT NULL DEFAULT '1 day',
    occurrences  integer     NOT NULL DEFAULT 1,
    opened_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    notified_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Null while it is open. What only tells of an event is closed from the beginning.
    resolved_at  timestamptz
);
COMMENT ON TABLE reconciler.alerts IS 'What somebody has to hear of; at most one open alert of a kind for each job';
CREATE UNIQUE INDEX alerts_open_key ON reconciler.alerts (job_name, kind) WHERE resolved_at IS NULL;
CREATE INDEX alerts_opened_idx ON reconciler.alerts (opened_at);

CREATE TABLE reconciler.alert_deliveries (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alert_id      bigint      NOT NULL REFERENCES reconciler.alerts (id) ON DELETE CASCADE,
    channel       text        NOT NULL,
    -- 0 is the first message, then come the reminders.
    reminder      integer     NOT NULL DEFAULT 0,
    status        text        NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'sent', 'failed')),
    attempts      integer     NOT NULL DEFAULT 0,
    due_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Who claimed it has until then; afterwards it is anybody's again.
    claimed_until timestamptz,
    last_error    text,
    sent_at       timestamptz,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (alert_id, channel, reminder)
);
COMMENT ON TABLE reconciler.alert_deliveries IS 'The outbox: one row for each message to each channel';
CREATE INDEX alert_deliveries_due_idx ON reconciler.alert_deliveries (due_at) WHERE status = 'pending';

-- What an earlier release applied.
INSERT INTO reconciler.policies
SELECT p.*, 'GMT', d.digest FROM reconciler.declared_policies p JOIN reconciler.definitions d ON d.name = p.name;
INSERT INTO reconciler.job_states (name) SELECT name FROM reconciler.policies;
