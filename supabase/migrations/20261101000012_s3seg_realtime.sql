-- Whether Realtime tells users of their tasks, so that clients may wait for it instead of polling. What it tells whom is
-- decided by the policy own_rows: it reads a changed row as the role and with the claims of each subscriber.

-- again, for projects that made or replaced the publication after the first migration
do $$ begin
  if exists (select from pg_publication where pubname = 'supabase_realtime' and not puballtables)
     and not exists (select from pg_publication_tables where pubname = 'supabase_realtime'
                     and schemaname = 'public' and tablename = 'segmentation_results') then
    alter publication supabase_realtime add table public.segmentation_results;
  end if;
end $$;

create function public.s3seg_realtime() returns boolean language sql stable security definer set search_path = '' as $$
  select exists (select from pg_catalog.pg_publication_tables where pubname = 'supabase_realtime'
                 and schemaname = 'public' and tablename = 'segmentation_results')
$$;
revoke all on function public.s3seg_realtime() from public, anon, authenticated, service_role;
grant execute on function public.s3seg_realtime() to anon, authenticated, service_role;

notify pgrst, 'reload schema';
