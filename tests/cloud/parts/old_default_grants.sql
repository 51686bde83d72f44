-- Projects made before Supabase stopped exposing new tables grant everything in public to the API roles.
-- Without this the tests could not see a missing REVOKE.
alter default privileges in schema public grant all on tables    to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
