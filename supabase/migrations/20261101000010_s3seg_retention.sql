-- Images and results that end after a time, and accounts that their users delete.

alter table private.config add column retention_s integer check (retention_s > 0);  -- null: kept until deleted

alter table public.images add column expires_at timestamptz;
alter table public.segmentation_results add column keep_s integer check (keep_s > 0),
  add column expires_at timestamptz;  -- set when the task ends
alter table public.profiles add column closed_at timestamptz,
  add column emptied_at timestamptz;  -- when the last stored object of a closed account was deleted

create index images_expiry on public.images (expires_at) where expires_at is not null;
create index segmentation_results_expiry on public.segmentation_results (expires_at) where expires_at is not null;
create index profiles_closed on public.profiles (closed_at) where closed_at is not null and emptied_at is null;
create index leases_user on private.leases (user_id);
-- counting a user's results reads no row of the table
drop index public.segmentation_results_user;
create index segmentation_results_user on public.segmentation_results (user_id, created_at desc, id desc)
  include (expires_at);
drop index public.segmentation_results_project;
create index segmentation_results_project on public.segmentation_results (project_id, created_at desc, id desc)
  include (expires_at) where project_id is not null;

-- Runs after the trigger "guard", which sets updated_at.
create function private.set_expiry() returns trigger language plpgsql set search_path = '' as $$
begin
  new.expires_at := new.updated_at + make_interval(secs => new.keep_s);
  return new;
end $$;
create trigger guard_expiry before update of status on public.segmentation_results for each row
  when (new.status in ('done', 'error') and old.status not in ('done', 'error')) execute function private.set_expiry();

-- What has ended is as if it had been deleted.
drop policy own_rows on public.images;
create policy own_rows on public.images for select to authenticated
  using ((select private.caller()) = user_id and (expires_at is null or expires_at > (select private.now())));
drop policy own_rows on public.segmentation_results;
create policy own_rows on public.segmentation_results for select to authenticated
  using ((select private.caller()) = user_id and (expires_at is null or expires_at > (select private.now())));

-- The time for which something is kept: what the user asks for, if the operator allows it, or else the operator's.
create function private.keep_for(p_asked integer) returns integer language plpgsql stable set search_path = '' as $$
declare most integer := (select retention_s from private.config);
  longest integer := coalesce(most, 315360000); shortest integer := least(60, longest);
begin
  if p_asked is null then return most; end if;
  if p_asked not between shortest and longest then
    raise exception using errcode = 'PT400', message = 'BAD_KEEP', detail = jsonb_build_object(
      'shortest', shortest, 'longest', longest, 'asked', p_asked)::text;
  end if;
  return p_asked;
end $$;

-- As before, but not for an account that was deleted.
create or replace function private.require_account() returns public.profiles language plpgsql set search_path = '' as $$
declare uid uuid := private.caller(); account public.profiles; named text;
begin
  if uid is null then
    raise exception using errcode = case when auth.uid() is null then 'PT401' else 'PT403' end, message = 'NOT_SIGNED_IN';
  end if;
  account := private.lock_account(uid);
  if account.user_id is null then
    named := auth.jwt() -> 'app_metadata' ->> 'tier';
    perform private.make_account(uid, case when named in ('pro', 'enterprise') then named::public.user_tier
                                           else 'free' end);
    account := private.lock_account(uid);
  end if;
  if account.closed_at is not null then
    raise exception using errcode = 'PT401', message = 'ACCOUNT_DELETED';
  end if;
  return account;
end $$;

create or replace function private.make_account(p_user_id uuid, p_tier public.user_tier) returns void
language plpgsql set search_path = '' as $$
declare welcome integer := (select welcome_credits from private.config);
begin
  if exists (select 1 from public.profiles where user_id = p_user_id and closed_at is not null) then
    raise exception using errcode = 'PT401', message = 'ACCOUNT_DELETED';
  end if;
  insert into public.profiles (user_id, tier) values (p_user_id, p_tier) on conflict do nothing;
  if found and welcome > 0 then
    insert into public.credit_ledger (user_id, delta, reason) values (p_user_id, welcome, 'grant');
  end if;
exception when foreign_key_violation then
  raise exception using errcode = 'PT403', message = 'NO_SUCH_USER';  -- the token outlived its user
end $$;

create or replace function public.my_account() returns jsonb language plpgsql security definer set search_path = '' as $$
declare account public.profiles := private.require_account();
begin
  perform private.correct_counts(account.user_id);
  return to_jsonb(account) || jsonb_build_object('retention_s', (select retention_s from private.config));
end $$;

drop function public.register_image(text, text, bigint, integer, integer, uuid);
create function public.register_image(p_object_key text, p_content_type text, p_size_bytes bigint, p_width integer,
    p_height integer, p_project_id uuid default null, p_keep_s integer default null) returns public.images
language plpgsql security definer set search_path = '' as $$
declare account public.profiles := private.require_account(); i public.images;
  moment timestamptz := private.now();
begin
  perform private.count_action(account, 'upload');
  perform private.require_project(account.user_id, p_project_id);
  insert into public.images (user_id, project_id, object_key, image_url, content_type, size_bytes, width, height,
      created_at, expires_at)
    select account.user_id, p_project_id, p_object_key, public_base_url || '/' || p_object_key, p_content_type,
           p_size_bytes, p_width, p_height, moment, moment + make_interval(secs => private.keep_for(p_keep_s))
      from private.config
    returning * into i;
  return i;
end $$;

drop function public.find_repeat(text, text[], uuid, text, jsonb);
drop function public.submit_segmentation(text, text[], uuid, text, jsonb);
drop function private.fingerprint(text, text[], uuid, jsonb);

-- Fingerprints of requests without the new argument stay as they were.
create function private.fingerprint(p_image_url text, p_text_prompts text[], p_project_id uuid, p_visual jsonb,
    p_keep_s integer)
returns text language sql stable set search_path = '' as $$
  select encode(sha256(convert_to((jsonb_build_array(p_image_url, p_text_prompts, p_project_id)
    || case when p_visual is null then '[]'::jsonb else jsonb_build_array(p_visual) end
    || case when p_keep_s is null then '[]'::jsonb else jsonb_build_array(p_keep_s) end)::text, 'UTF8')), 'hex')
$$;

-- As before, but a task whose time is over gives its key free.
create or replace function private.repeat_of(p_user_id uuid, p_fingerprint text, p_idempotency_key text)
returns public.segmentation_results language plpgsql set search_path = '' as $$
declare t public.segmentation_results;
begin
  update public.segmentation_results set idempotency_key = null
    where user_id = p_user_id and idempotency_key = p_idempotency_key and expires_at <= private.now();
  select * into t from public.segmentation_results
    where user_id = p_user_id and idempotency_key = p_idempotency_key;
  if t.fingerprint <> p_fingerprint then raise exception using errcode = 'PT400', message = 'KEY_REUSED'; end if;
  return t;
end $$;

create function public.find_repeat(p_image_url text, p_text_prompts text[], p_project_id uuid default null,
    p_idempotency_key text default null, p_visual jsonb default null, p_keep_s integer default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare account public.profiles := private.require_account();
  t public.segmentation_results := private.repeat_of(account.user_id,
    private.fingerprint(p_image_url, p_text_prompts, p_project_id, p_visual, p_keep_s), p_idempotency_key);
begin
  return case when t.id is not null then to_jsonb(t) end;
end $$;

create function public.submit_segmentation(p_image_url text, p_text_prompts text[], p_project_id uuid default null,
    p_idempotency_key text default null, p_visual jsonb default null, p_keep_s integer default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  -- holding the account's lock, this user's submits run one after another: no double spend, no race of two keys
  account public.profiles := private.require_account();
  asked text := private.fingerprint(p_image_url, p_text_prompts, p_project_id, p_visual, p_keep_s);
  moment timestamptz := private.now();
  t public.segmentation_results; image uuid; cost integer; rate jsonb; keep integer;
begin
  if not coalesce(private.are_prompts(p_text_prompts), false) then
    raise exception using errcode = 'PT400', message = 'BAD_PROMPTS';
  end if;
  if p_visual is not null and not coalesce(private.is_visual(p_visual, cardinality(p_text_prompts)), false) then
    raise exception using errcode = 'PT400', message = 'BAD_VISUAL';
  end if;
  t := private.repeat_of(account.user_id, asked, p_idempotency_key);
  if t.id is not null then
    return jsonb_build_object('task', to_jsonb(t), 'created', false, 'rate', null);
  end if;
  rate := private.count_action(account, 'segment');

  -- an image is also found by the URL that it would have today: the public base URL may have changed since it was stored
  select i.id into image from public.images i, private.config c
    where i.user_id = account.user_id and (i.expires_at is null or i.expires_at > moment) and (
      i.image_url = p_image_url or (
        starts_with(p_image_url, c.public_base_url || '/')
        and i.object_key = substr(p_image_url, length(c.public_base_url) + 2)));
  if not found then raise exception using errcode = 'PT400', message = 'UNKNOWN_IMAGE'; end if;
  -- the image is not collected from now on; it may have been a moment ago
  perform 1 from public.images where id = image for key share;
  if not found then raise exception using errcode = 'PT400', message = 'UNKNOWN_IMAGE'; end if;
  perform private.require_project(account.user_id, p_project_id);
  keep := private.keep_for(p_keep_s);
  cost := cardinality(p_text_prompts);
  if account.credits < cost then
    raise exception using errcode = 'PT402', message = 'INSUFFICIENT_CREDITS', detail = jsonb_build_object(
      'cost', cost, 'credits', account.credits)::text;
  end if;

  insert into public.segmentation_results (user_id, project_id, image_id, source_image_url, text_prompts, text_prompt,
      idempotency_key, fingerprint, created_at, updated_at, deadline, visual, keep_s)
    select account.user_id, p_project_id, image, p_image_url, p_text_prompts, array_to_string(p_text_prompts, ', '),
           p_idempotency_key, asked, moment, moment, moment + deadline, p_visual, keep from private.config
    returning * into t;
  insert into private.leases (task_id, user_id, created_at, deadline, expires_at)
    values (t.id, t.user_id, t.created_at, t.deadline, t.created_at);
  insert into public.credit_ledger (user_id, delta, reason, task_id, created_at)
    values (t.user_id, -cost, 'segment', t.id, moment);
  return jsonb_build_object('task', to_jsonb(t), 'created', true, 'rate', rate);
end $$;

create or replace function public.cancel_task(p_task_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare account public.profiles := private.require_account();
begin
  if not exists (select 1 from public.segmentation_results where id = p_task_id and user_id = account.user_id
                   and (expires_at is null or expires_at > private.now())) then
    return null;
  end if;
  perform private.end_in_error(p_task_id, 'CANCELLED', 'cancelled');
  return private.task_json(p_task_id);
end $$;

create or replace function public.delete_image(p_image_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare account public.profiles := private.require_account(); gone public.images; live uuid;
begin
  select * into gone from public.images where id = p_image_id and user_id = account.user_id
    and (expires_at is null or expires_at > private.now());
  if not found then return null; end if;
  for live in select t.id from public.segmentation_results t join private.leases l on l.task_id = t.id
      where t.image_id = p_image_id order by t.id loop
    perform private.end_in_error(live, 'CANCELLED', 'cancelled');
  end loop;
  delete from public.images where id = p_image_id;
  return to_jsonb(gone);
end $$;

-- Mark an account as deleted, for ever. Its tasks are cancelled and refunded, and its webhooks removed, in the same
-- transaction; operator_collect removes the rest. The ledger stays.
create function private.close_account(p_user_id uuid) returns timestamptz
language plpgsql set search_path = '' as $$
declare account public.profiles; live uuid;
begin
  insert into public.profiles (user_id) values (p_user_id) on conflict do nothing;
  account := private.lock_account(p_user_id);
  delete from private.webhooks where user_id = p_user_id;
  delete from private.recent_actions where user_id = p_user_id;
  if account.closed_at is not null then return account.closed_at; end if;
  for live in select task_id from private.leases where user_id = p_user_id order by task_id loop
    perform private.end_in_error(live, 'CANCELLED', 'cancelled');
  end loop;
  update public.profiles set closed_at = private.now() where user_id = p_user_id returning * into account;
  return account.closed_at;
exception when foreign_key_violation then
  raise exception using errcode = 'PT403', message = 'NO_SUCH_USER';
end $$;

create function public.close_my_account() returns timestamptz language plpgsql security definer set search_path = '' as $$
declare uid uuid := private.caller();
begin
  if uid is null then
    raise exception using errcode = case when auth.uid() is null then 'PT401' else 'PT403' end, message = 'NOT_SIGNED_IN';
  end if;
  return private.close_account(uid);
end $$;

create function public.operator_close(p_user_id uuid) returns timestamptz language plpgsql security definer
set search_path = '' as $$ begin return private.close_account(p_user_id); end $$;

-- Deleted accounts that have neither tasks nor images, but may have other rows, and stored objects.
create function private.empty_accounts() returns setof uuid language sql stable set search_path = '' as $$
  select p.user_id from public.profiles p where p.closed_at is not null and p.emptied_at is null
    and not exists (select 1 from public.segmentation_results t where t.user_id = p.user_id)
    and not exists (select 1 from public.images i where i.user_id = p.user_id)
$$;

-- Remove up to p_limit images and p_limit tasks whose time is over or whose account was deleted, and return their keys.
-- Of tasks, only such as have ended: they have no lease.
create function public.operator_collect(p_limit integer) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare keys text[] := '{}'; tasks integer := 0; images integer := 0; one record; moment timestamptz := private.now();
begin
  for one in
    select t.id, t.object_keys from public.segmentation_results t
      where t.id in (
        select id from public.segmentation_results where expires_at <= moment
        union
        select r.id from public.segmentation_results r join public.profiles p on p.user_id = r.user_id
          where p.closed_at is not null and p.emptied_at is null and r.status in ('done', 'error')
        limit p_limit)
      for update of t skip locked
  loop
    delete from public.segmentation_results where id = one.id;
    keys := keys || one.object_keys;
    tasks := tasks + 1;
  end loop;
  for one in
    select i.id, i.object_key from public.images i
      where i.id in (
        select id from public.images e where expires_at <= moment
          and not exists (select 1 from public.segmentation_results t join private.leases l on l.task_id = t.id
                            where t.image_id = e.id)
        union
        select r.id from public.images r join public.profiles p on p.user_id = r.user_id
          where p.closed_at is not null and p.emptied_at is null
        limit p_limit)
      for update of i skip locked
  loop
    -- once more, as a task may have been submitted before the image was locked
    delete from public.images where id = one.id and not exists (
      select 1 from public.segmentation_results t join private.leases l on l.task_id = t.id where t.image_id = one.id);
    if found then
      keys := keys || one.object_key;
      images := images + 1;
    end if;
  end loop;
  delete from public.projects where user_id in (select private.empty_accounts());
  delete from public.concepts where user_id in (select private.empty_accounts());
  return jsonb_build_object('images', images, 'results', tasks, 'object_keys', to_jsonb(keys));
end $$;

create function public.operator_closed_accounts(p_limit integer) returns jsonb language sql stable security definer
set search_path = '' as $$
  select coalesce(jsonb_agg(e order by e), '[]') from (
    select e from private.empty_accounts() e
      where not exists (select 1 from public.projects where user_id = e)
        and not exists (select 1 from public.concepts where user_id = e)
      order by e limit p_limit) closed
$$;

create function public.operator_emptied(p_user_id uuid) returns void language sql security definer
set search_path = '' as
$$ update public.profiles set emptied_at = private.now() where user_id = p_user_id and closed_at is not null $$;

-- As before, but the time is taken once, as an index cannot be searched for a value that may change from row to row, and
-- what is held is not read: with 24,000 leases held, a claim that found nothing took a quarter of a second.
create index leases_free on private.leases (created_at, task_id) where worker is null;
create index leases_held on private.leases (expires_at) where worker is not null;
drop index private.leases_age;

create or replace function public.worker_claim_batch(p_worker text, p_limit integer, p_lease_s double precision)
returns jsonb language plpgsql security definer set search_path = '' as $$
declare l private.leases; claimed jsonb := '[]'; moment timestamptz := private.now();
  most integer := (select max_attempts from private.config);
begin
  for l in
    with free as (
      select one from private.leases one
        where worker is null and expires_at <= moment and deadline > moment and attempt - released < most
        order by created_at, task_id limit p_limit for update skip locked),
    lost as (
      select one from private.leases one
        where worker is not null and expires_at <= moment and deadline > moment and attempt - released < most
        order by created_at, task_id limit p_limit for update skip locked)
    select (one).* from (select one from free union all select one from lost) found
      order by (one).created_at, (one).task_id limit p_limit loop
    claimed := claimed || private.take(l, p_worker, p_lease_s);
  end loop;
  return claimed;
end $$;

create or replace function public.worker_claim_deliveries(p_limit integer, p_lease_s double precision,
    p_kept_days integer)
returns jsonb language plpgsql security definer set search_path = '' as $$
declare claimed jsonb; moment timestamptz := private.now();
begin
  delete from private.deliveries
    where next_attempt_at is null and created_at < moment - make_interval(days => p_kept_days);
  with due as (
    select id from private.deliveries where next_attempt_at <= moment
      order by created_at, id limit p_limit for update skip locked),
  taken as (
    update private.deliveries d
      set attempts = attempts + 1, next_attempt_at = moment + make_interval(secs => p_lease_s)
      from due where d.id = due.id returning d.*)
  select jsonb_agg(jsonb_build_object('delivery_id', t.id, 'url', w.url, 'secret', w.secret, 'payload', t.payload,
                                      'attempts', t.attempts) order by t.created_at, t.id)
    into claimed from taken t join private.webhooks w on w.id = t.webhook_id;
  return coalesce(claimed, '[]');
end $$;

create or replace function public.worker_backlog(p_recent_s double precision) returns jsonb language plpgsql stable
security definer set search_path = '' as $$
declare moment timestamptz := private.now();
begin
  return (
    with live as (
      select created_at, worker, worker is not null and expires_at > moment as held
        from private.leases where deadline > moment)
    select jsonb_build_object(
      'waiting', count(*) filter (where not held),
      'running', count(*) filter (where held),
      'workers', count(distinct worker) filter (where held),
      'oldest_wait_s', coalesce(greatest(0, extract(epoch from moment - min(created_at) filter (where not held))), 0),
      'ended_recently', (select count(*) from public.segmentation_results
        where status = 'done' and updated_at > moment - make_interval(secs => p_recent_s)))
    from live);
end $$;

create or replace function public.s3seg_info() returns jsonb language sql stable security definer set search_path = '' as
$$ select jsonb_build_object('version', 7, 'public_base_url', public_base_url) from private.config $$;

grant select (closed_at, emptied_at) on public.profiles to authenticated;
grant select (expires_at) on public.images to authenticated;
grant select (keep_s, expires_at) on public.segmentation_results to authenticated;
revoke all on all functions in schema private from public, anon, authenticated, service_role;
grant execute on function private.caller(), private.now(), private.is_text(text, integer) to authenticated;
revoke all on function public.register_image, public.find_repeat, public.submit_segmentation, public.close_my_account,
  public.operator_close, public.operator_collect, public.operator_closed_accounts, public.operator_emptied
  from public, anon, authenticated, service_role;
grant execute on function public.register_image, public.find_repeat, public.submit_segmentation, public.close_my_account
  to authenticated;
grant execute on function public.operator_close, public.operator_collect, public.operator_closed_accounts,
  public.operator_emptied to service_role;

notify pgrst, 'reload schema';
