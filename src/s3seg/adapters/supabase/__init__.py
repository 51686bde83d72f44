"""Tasks, accounts, projects and tokens in a Supabase project.

Tables are accessed through PostgREST; their schema is in ``supabase/migrations``. Calls on behalf of a user carry the
user's own token, so that row-level security applies. Calls of workers and operators carry the secret key.

Nothing is imported here, since `s3seg.adapters.supabase.auth` must work without the packages of the extra ``cloud``.
"""
