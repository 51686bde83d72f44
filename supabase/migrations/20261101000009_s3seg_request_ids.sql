-- The id of the request that submitted a task, so that the log lines of whichever worker claims it have it too. It comes
-- from the header X-Request-Id of the call, and means nothing to the database.

create function private.request_id() returns text language sql stable set search_path = '' as $$
  select substring(nullif(current_setting('request.headers', true), '')::json ->> 'x-request-id' from '^[!-~]{1,64}$')
$$;
alter table public.segmentation_results add column request_id text;
alter table public.segmentation_results alter column request_id set default private.request_id();

create or replace function public.s3seg_info() returns jsonb language sql stable security definer set search_path = '' as
$$ select jsonb_build_object('version', 6, 'public_base_url', public_base_url) from private.config $$;

revoke all on function private.request_id from public, anon, authenticated, service_role;
grant select (request_id) on public.segmentation_results to authenticated;

notify pgrst, 'reload schema';
