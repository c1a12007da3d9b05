-- The schema of the reconciler: what is declared, what was applied, what ran.
--
-- No role but the owner writes these tables. Roles that run jobs come in through start_run and finish_run alone,
-- which check the caller and pin their search_path.

CREATE SCHEMA reconciler;
COMMENT ON SCHEMA reconciler IS 'Scheduled work as declared in jobs.d; managed by reconciler, do not edit by hand';
GRANT USAGE ON SCHEMA reconciler TO PUBLIC;

CREATE TABLE reconciler.migrations (
    number      integer     PRIMARY KEY,
    name        text        NOT NULL,
    checksum    text        NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now(),
    applied_by  text        NOT NULL DEFAULT current_user
);

CREATE TABLE reconciler.revisions (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The one before, 0 for none. Unique, so that of two applies that saw the same state only one can commit.
    previous    bigint      NOT NULL UNIQUE,
    owner       text        NOT NULL,
    target      text        NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now(),
    applied_by  text        NOT NULL DEFAULT session_user,
    actor       text        NOT NULL DEFAULT '',
    commit      text        NOT NULL DEFAULT '',
    release     text        NOT NULL,
    summary     json        NOT NULL,
    changes     json        NOT NULL
);
COMMENT ON TABLE reconciler.revisions IS 'One row for each successful apply that changed something';
CREATE INDEX revisions_owner_idx ON reconciler.revisions (owner, id);

-- The lock of a job: 64 bits of a hash of database, schema and name. It is kept in the definition, since it must
-- not change with a major version of PostgreSQL as hashtext may; the unique constraint finds collisions at apply.
CREATE FUNCTION reconciler.make_lock_key(name text) RETURNS bigint
LANGUAGE sql STABLE
AS $$
    SELECT ('x' || substr(encode(sha256(convert_to(
        current_database() || chr(31) || 'reconciler' || chr(31) || name, 'UTF8')), 'hex'), 1, 16))::bit(64)::bigint
$$;

-- Durations are written as in 1h30m or 4w2d; interval reads them all once there are blanks between the units.
CREATE FUNCTION reconciler.read_duration(text) RETURNS interval
LANGUAGE sql STABLE STRICT
AS $$ SELECT regexp_replace($1, '([a-z]+)', '\1 ', 'g')::interval $$;

CREATE TABLE reconciler.definitions (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text        NOT NULL UNIQUE,
    kind        text        NOT NULL CHECK (kind IN ('job', 'queue', 'worker', 'channel')),
    owner       text        NOT NULL,
    -- json and not jsonb: it keeps the canonical text byte for byte, and that text is what is compared.
    spec        json        NOT NULL,
    digest      text        NOT NULL,
    protect     boolean     NOT NULL DEFAULT false,
    source      text        NOT NULL DEFAULT '',
    lock_key    bigint      NOT NULL UNIQUE,
    -- The entry in cron.job as last applied; all null where there is none.
    jobid       bigint,
    schedule    text,
    command     text,
    database    text,
    username    text,
    active      boolean,
    revision    bigint,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CHECK (num_nulls(jobid, schedule, command, database, username, active) IN (0, 6))
);
COMMENT ON TABLE reconciler.definitions IS 'Every declared resource: who owns it and what was last applied';
CREATE INDEX definitions_owner_idx ON reconciler.definitions (owner);

CREATE TABLE reconciler.queues (
    name            text     PRIMARY KEY REFERENCES reconciler.definitions (name) ON UPDATE CASCADE ON DELETE CASCADE,
    mode            text     NOT NULL CHECK (mode IN ('standard', 'blocking')),
    max_attempts    integer  NOT NULL CHECK (max_attempts > 0),
    backoff_initial interval NOT NULL,
    backoff_factor  numeric  NOT NULL,
    backoff_max     interval NOT NULL,
    concurrency     integer  CHECK (concurrency > 0),
    rate_count      integer  CHECK (rate_count > 0),
    rate_per        interval,
    retention       interval NOT NULL
);

CREATE TABLE reconciler.workers (
    name        text     PRIMARY KEY REFERENCES reconciler.definitions (name) ON UPDATE CASCADE ON DELETE CASCADE,
    queue       text     NOT NULL,
    url         text     NOT NULL,
    secret      text,
    status      text     NOT NULL CHECK (status IN ('pending', 'failed')),
    job_limit   integer  NOT NULL CHECK (job_limit > 0),
    timeout     interval NOT NULL
);

CREATE TABLE reconciler.jobs (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The declared job that this one comes from; null for one that a program queued.
    job_name     text,
    -- A declared one-time job: at most one row for each, reconciled while it is pending.
    once         boolean     NOT NULL DEFAULT false,
    active       boolean     NOT NULL DEFAULT true,
    handler      text,
    queue        text        NOT NULL DEFAULT 'default',
    payload      jsonb       NOT NULL DEFAULT '{}',
    status       text        NOT NULL DEFAULT 'pending'
                 CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    run_at       timestamptz NOT NULL DEFAULT now(),
    attempts     integer     NOT NULL DEFAULT 0,
    last_error   text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    started_at   timestamptz,
    completed_at timestamptz,
    CHECK (NOT once OR job_name IS NOT NULL)
);
COMMENT ON TABLE reconciler.jobs IS 'Queued jobs: work that waits for, or was done by, a worker';
CREATE UNIQUE INDEX jobs_once_key ON reconciler.jobs (job_name) WHERE once;
CREATE INDEX jobs_ready_idx ON reconciler.jobs (queue, run_at, id) WHERE status = 'pending';

CREATE TABLE reconciler.cron_execution_log (
    id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_name       text        NOT NULL,
    definition_id  bigint,
    run_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    completed_at   timestamptz,
    status         text        NOT NULL DEFAULT 'running' CHECK (status IN
                   ('running', 'succeeded', 'failed', 'timed_out', 'skipped', 'cancelled', 'lost')),
    error_message  text,
    error_sqlstate text,
    error_detail   text,
    error_context  text,
    rows_affected  bigint,
    trigger        text        NOT NULL DEFAULT 'schedule'
                   CHECK (trigger IN ('schedule', 'manual', 'retry', 'dependency', 'catch_up')),
    role           text        NOT NULL,
    backend_pid    integer     NOT NULL,
    revision       bigint,
    CHECK ((status = 'running') = (completed_at IS NULL))
);
COMMENT ON TABLE reconciler.cron_execution_log IS 'One row for each run of a managed job';
CREATE INDEX cron_execution_log_job_idx ON reconciler.cron_execution_log (job_name, run_at DESC);
CREATE INDEX cron_execution_log_running_idx ON reconciler.cron_execution_log (id) WHERE status = 'running';

-- The rows that queues, workers and one-time jobs ought to have. Apply copies them; a difference is drift.

CREATE VIEW reconciler.declared_queues AS
SELECT name,
       coalesce(spec ->> 'mode', 'standard')                        AS mode,
       coalesce((spec ->> 'max_attempts')::integer, 5)              AS max_attempts,
       reconciler.read_duration(coalesce(spec #>> '{backoff,initial}', '30s'))      AS backoff_initial,
       coalesce((spec #>> '{backoff,factor}')::numeric, 2)          AS backoff_factor,
       reconciler.read_duration(coalesce(spec #>> '{backoff,max}', '1h'))           AS backoff_max,
       (spec ->> 'concurrency')::integer                            AS concurrency,
       nullif(split_part(spec ->> 'rate', '/', 1), '')::integer     AS rate_count,
       reconciler.read_duration(nullif(split_part(spec ->> 'rate', '/', 2), '')) AS rate_per,
       reconciler.read_duration(coalesce(spec ->> 'retention', '7d'))               AS retention
  FROM reconciler.definitions
 WHERE kind = 'queue';

CREATE VIEW reconciler.declared_workers AS
SELECT name,
       coalesce(spec ->> 'queue', 'default')                        AS queue,
       spec ->> 'url'                                               AS url,
       spec #>> '{token,secret}'                                    AS secret,
       coalesce(spec ->> 'status', 'pending')                       AS status,
       coalesce((spec ->> 'limit')::integer, 1)                     AS job_limit,
       reconciler.read_duration(coalesce(spec ->> 'timeout', '30s'))                AS timeout
  FROM reconciler.definitions
 WHERE kind = 'worker';

CREATE VIEW reconciler.declared_jobs AS
SELECT name                                                         AS job_name,
       (spec ->> 'once')::timestamptz                               AS run_at,
       coalesce((spec ->> 'active')::boolean, true)                 AS active,
       spec ->> 'handler'                                           AS handler,
       coalesce(spec ->> 'queue', 'default')                        AS queue,
       coalesce((spec -> 'payload')::jsonb, '{}')                   AS payload
  FROM reconciler.definitions
 WHERE kind = 'job' AND (spec ->> 'once') IS NOT NULL;
