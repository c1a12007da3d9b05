-- name: begin_call
SELECT id, state, status, answer::text AS answer, answer_headers::text AS headers
  FROM reconciler.begin_api_call(
       %(token_id)s, %(caller)s, %(action)s, %(subject)s, %(method)s, %(path)s, %(key)s, %(digest)s, %(is_atomic)s);

-- name: hold_call
SELECT reconciler.hold_api_call(%(id)s, %(key)s);

-- name: end_call
SELECT reconciler.end_api_call(%(id)s, %(status)s, %(answer)s::text::json, %(headers)s::text::json, %(keeps)s);

-- name: list_calls
SELECT * FROM reconciler.list_api_calls(%(before)s, %(limit)s);
