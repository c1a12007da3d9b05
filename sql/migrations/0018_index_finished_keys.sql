-- What became of a job is asked by its unique_key, too: the Scheduler does so each time something is scheduled. Jobs
-- without a key are not in the index, and finish as quickly as before. Of a declared job the newest is asked for.
CREATE INDEX jobs_finished_key_idx ON reconciler.jobs_finished (queue, unique_key, completed_at)
    WHERE unique_key IS NOT NULL;
DROP INDEX reconciler.jobs_finished_declared_idx;
CREATE INDEX jobs_finished_declared_idx ON reconciler.jobs_finished (job_name, completed_at)
    WHERE job_name IS NOT NULL;
