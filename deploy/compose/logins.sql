-- The logins of compose.yaml, made where they are missing; passwords come from the environment, and can be changed there.
\set ON_ERROR_STOP on
\getenv deploy DEPLOY_PASSWORD
\getenv service SERVICE_PASSWORD
\getenv worker WORKER_PASSWORD
-- Passwords are no one's business in the log.
SET log_statement = none;
SELECT format('CREATE ROLE %I LOGIN', name) FROM unnest(ARRAY['deploy', 'service', 'worker']) AS name
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE deploy PASSWORD :'deploy';
ALTER ROLE service PASSWORD :'service';
ALTER ROLE worker PASSWORD :'worker';
-- Jobs run as deploy. Who is in its role may start and pause them; the service can do so without becoming it.
GRANT deploy TO service WITH INHERIT FALSE, SET FALSE;
