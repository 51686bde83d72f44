-- A worker that has as many tasks with tiles as it takes at a time claims others only: tiles take much longer, and those of
-- one user must not keep the tasks of all others waiting.

create function private.has_tiles(p_task_id uuid) returns boolean language sql stable set search_path = '' as $$
  select exists (select from public.segmentation_results r where r.id = p_task_id and r.visual ? 'tile')
$$;

drop function public.worker_claim_batch(text, integer, double precision);

create function public.worker_claim_batch(
    p_worker text, p_limit integer, p_lease_s double precision, p_with_tiles boolean default true) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare l private.leases; claimed jsonb := '[]'; moment timestamptz := private.now();
  most integer := (select max_attempts from private.config);
begin
  for l in
    with free as (
      select one from private.leases one
        where worker is null and expires_at <= moment and deadline > moment and attempt - released < most
          and (p_with_tiles or not private.has_tiles(task_id))
        order by created_at, task_id limit p_limit for update skip locked),
    lost as (
      select one from private.leases one
        where worker is not null and expires_at <= moment and deadline > moment and attempt - released < most
          and (p_with_tiles or not private.has_tiles(task_id))
        order by created_at, task_id limit p_limit for update skip locked)
    select (one).* from (select one from free union all select one from lost) found
      order by (one).created_at, (one).task_id limit p_limit loop
    claimed := claimed || private.take(l, p_worker, p_lease_s);
  end loop;
  return claimed;
end $$;

revoke all on function private.has_tiles from public, anon, authenticated, service_role;
revoke all on function public.worker_claim_batch from public, anon, authenticated;
grant execute on function public.worker_claim_batch to service_role;

create or replace function public.s3seg_info() returns jsonb language sql stable security definer set search_path = '' as
$$ select jsonb_build_object('version', 8, 'public_base_url', public_base_url) from private.config $$;

notify pgrst, 'reload schema';
