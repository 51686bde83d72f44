-- How much work waits, for operators and for those who start and stop workers.

create index segmentation_results_done on public.segmentation_results (updated_at) where status = 'done';

create function public.worker_backlog(p_recent_s double precision) returns jsonb language sql stable security definer
set search_path = '' as $$
  with live as (
    select created_at, worker, worker is not null and expires_at > private.now() as held
      from private.leases where deadline > private.now())
  select jsonb_build_object(
    'waiting', count(*) filter (where not held),
    'running', count(*) filter (where held),
    'workers', count(distinct worker) filter (where held),
    'oldest_wait_s', coalesce(greatest(0, extract(epoch from private.now() - min(created_at) filter (where not held))), 0),
    'ended_recently', (select count(*) from public.segmentation_results
      where status = 'done' and updated_at > private.now() - make_interval(secs => p_recent_s)))
  from live
$$;

create or replace function public.s3seg_info() returns jsonb language sql stable security definer set search_path = '' as
$$ select jsonb_build_object('version', 3, 'public_base_url', public_base_url) from private.config $$;

revoke all on function public.worker_backlog from public, anon, authenticated, service_role;
grant execute on function public.worker_backlog to service_role;

notify pgrst, 'reload schema';
