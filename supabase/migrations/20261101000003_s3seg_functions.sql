-- What users and operators may do. Every refusal has a code of ours (PT401 becomes HTTP 401, and so on); messages
-- are words, never rows.

-- The caller, with an account: made and welcomed when first seen, then locked until the transaction ends.
create function private.require_account() returns public.profiles language plpgsql set search_path = '' as $$
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
  return account;
end $$;

create function private.make_account(p_user_id uuid, p_tier public.user_tier) returns void
language plpgsql set search_path = '' as $$
declare welcome integer := (select welcome_credits from private.config);
begin
  insert into public.profiles (user_id, tier) values (p_user_id, p_tier) on conflict do nothing;
  if found and welcome > 0 then
    insert into public.credit_ledger (user_id, delta, reason) values (p_user_id, welcome, 'grant');
  end if;
exception when foreign_key_violation then
  raise exception using errcode = 'PT403', message = 'NO_SUCH_USER';  -- the token outlived its user
end $$;

create function private.require_project(p_user_id uuid, p_project_id uuid) returns void
language plpgsql set search_path = '' as $$
begin
  if p_project_id is not null and not exists (
      select 1 from public.projects where id = p_project_id and user_id = p_user_id) then
    raise exception using errcode = 'PT400', message = 'UNKNOWN_PROJECT';
  end if;
end $$;

create function private.refuse_rate(p_action text, p_limit integer, p_oldest timestamptz, p_now timestamptz)
returns void language plpgsql set search_path = '' as $$
begin
  raise exception using errcode = 'PT429', message = 'RATE_LIMITED', detail = jsonb_build_object(
    'action', p_action, 'limit', p_limit, 'oldest_age', extract(epoch from p_now - p_oldest))::text;
end $$;

-- Count one more action of a caller whose account is locked: as many as the edge allows, though it was passed by.
create function private.count_action(p_account public.profiles, p_action text) returns void
language plpgsql set search_path = '' as $$
declare moment timestamptz := private.now(); most integer; recent timestamptz[];
begin
  select per_minute into most from private.rate_limits where tier = p_account.tier and action = p_action;
  select array(select t from unnest(happened_at) t where t > moment - interval '60 seconds' order by t desc limit most)
    into recent from private.recent_actions where user_id = p_account.user_id and action = p_action;
  if coalesce(cardinality(recent), 0) >= most then
    perform private.refuse_rate(p_action, most, recent[most], moment);
  end if;
  insert into private.recent_actions values (p_account.user_id, p_action, array[moment])
    on conflict (user_id, action) do update set happened_at = recent || moment;
end $$;

-- The one thing that users write directly is counted like a request of the edge's, each row of a bulk insert too.
create function private.count_project() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  if private.caller() is not null then  -- the owner of the schema may put in what it likes
    perform private.count_action(private.require_account(), 'results');
  end if;
  return new;
end $$;
create trigger count before insert on public.projects for each row execute function private.count_project();

create function public.my_account() returns jsonb language plpgsql security definer set search_path = '' as $$
begin return to_jsonb(private.require_account()); end $$;

create function public.register_image(p_object_key text, p_content_type text, p_size_bytes bigint, p_width integer,
    p_height integer, p_project_id uuid default null) returns public.images
language plpgsql security definer set search_path = '' as $$
declare account public.profiles := private.require_account(); i public.images;
begin
  perform private.count_action(account, 'upload');
  perform private.require_project(account.user_id, p_project_id);
  insert into public.images (user_id, project_id, object_key, image_url, content_type, size_bytes, width, height)
    select account.user_id, p_project_id, p_object_key, public_base_url || '/' || p_object_key, p_content_type,
           p_size_bytes, p_width, p_height from private.config
    returning * into i;
  return i;
end $$;

-- One transaction: a known key, the rate, image and project, the credits, the task. The price is no argument.
create function public.submit_segmentation(p_image_url text, p_text_prompts text[], p_project_id uuid default null,
    p_idempotency_key text default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  -- holding the account's lock, this user's submits run one after another: no double spend, no race of two keys
  account public.profiles := private.require_account();
  asked text := encode(sha256(convert_to(
    jsonb_build_array(p_image_url, p_text_prompts, p_project_id)::text, 'UTF8')), 'hex');
  moment timestamptz := private.now();
  t public.segmentation_results; image uuid; most integer; used integer; oldest timestamptz; cost integer;
begin
  if not coalesce(private.are_prompts(p_text_prompts), false) then
    raise exception using errcode = 'PT400', message = 'BAD_PROMPTS';
  end if;
  if p_idempotency_key is not null then
    select * into t from public.segmentation_results
      where user_id = account.user_id and idempotency_key = p_idempotency_key;
    if found then
      if t.fingerprint <> asked then raise exception using errcode = 'PT400', message = 'KEY_REUSED'; end if;
      return jsonb_build_object('task', to_jsonb(t), 'created', false, 'rate', null);
    end if;
  end if;

  select per_minute into most from private.rate_limits where tier = account.tier and action = 'segment';
  select count(*), min(created_at) into used, oldest from (
    select created_at from public.credit_ledger
      where user_id = account.user_id and reason = 'segment' and created_at > moment - interval '60 seconds'
      order by created_at desc limit most) recent;
  if used >= most then perform private.refuse_rate('segment', most, oldest, moment); end if;

  select id into image from public.images where image_url = p_image_url and user_id = account.user_id;
  if not found then raise exception using errcode = 'PT400', message = 'UNKNOWN_IMAGE'; end if;
  perform private.require_project(account.user_id, p_project_id);
  cost := cardinality(p_text_prompts);
  if account.credits < cost then
    raise exception using errcode = 'PT402', message = 'INSUFFICIENT_CREDITS', detail = jsonb_build_object(
      'cost', cost, 'credits', account.credits)::text;
  end if;

  insert into public.segmentation_results (user_id, project_id, image_id, source_image_url, text_prompts, text_prompt,
      idempotency_key, fingerprint, created_at, updated_at, deadline)
    select account.user_id, p_project_id, image, p_image_url, p_text_prompts, array_to_string(p_text_prompts, ', '),
           p_idempotency_key, asked, moment, moment, moment + deadline from private.config
    returning * into t;
  insert into private.leases (task_id, user_id, created_at, deadline, expires_at)
    values (t.id, t.user_id, t.created_at, t.deadline, t.created_at);
  insert into public.credit_ledger (user_id, delta, reason, task_id, created_at)
    values (t.user_id, -cost, 'segment', t.id, moment);
  return jsonb_build_object('task', to_jsonb(t), 'created', true, 'rate', jsonb_build_object(
    'limit', most, 'count', used, 'oldest_age', extract(epoch from moment - oldest)));
end $$;

-- A live task of the caller ends in error "cancelled"; null if it is not the caller's.
create function public.cancel_task(p_task_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare account public.profiles := private.require_account();
begin
  if not exists (select 1 from public.segmentation_results where id = p_task_id and user_id = account.user_id) then
    return null;
  end if;
  perform private.end_in_error(p_task_id, 'CANCELLED', 'cancelled');
  return private.task_json(p_task_id);
end $$;

create function public.delete_task(p_task_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare gone jsonb := public.cancel_task(p_task_id);
begin
  if gone is not null then
    delete from public.segmentation_results where id = p_task_id;
  end if;
  return gone;
end $$;

create function public.delete_image(p_image_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare account public.profiles := private.require_account(); gone public.images; live uuid;
begin
  select * into gone from public.images where id = p_image_id and user_id = account.user_id;
  if not found then return null; end if;
  for live in select t.id from public.segmentation_results t join private.leases l on l.task_id = t.id
      where t.image_id = p_image_id order by t.id loop
    perform private.end_in_error(live, 'CANCELLED', 'cancelled');
  end loop;
  delete from public.images where id = p_image_id;
  return to_jsonb(gone);
end $$;

-- Operators, with the service key.

create function public.operator_ensure(p_user_id uuid, p_tier public.user_tier default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  perform private.make_account(p_user_id, coalesce(p_tier, 'free'));
  update public.profiles set tier = p_tier where user_id = p_user_id and tier <> p_tier;
  return (select to_jsonb(p) from public.profiles p where user_id = p_user_id);
end $$;

create function public.operator_adjust(p_user_id uuid, p_delta integer) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare account public.profiles;
begin
  perform private.make_account(p_user_id, 'free');
  account := private.lock_account(p_user_id);
  if account.credits + p_delta < 0 then
    raise exception using errcode = 'PT400', message = 'OVERDRAWN',
      detail = jsonb_build_object('credits', account.credits)::text;
  end if;
  if p_delta <> 0 then
    insert into public.credit_ledger (user_id, delta, reason) values (p_user_id, p_delta, 'adjust');
  end if;
  return (select to_jsonb(p) from public.profiles p where user_id = p_user_id);
end $$;

create function public.operator_referenced(p_keys text[]) returns text[] language sql stable security definer
set search_path = '' as $$
  select coalesce(array_agg(key), '{}') from unnest(p_keys) as key
    where exists (select 1 from public.images where object_key = key)
       or exists (select 1 from public.segmentation_results where object_keys @> array[key])
$$;

-- What a service needs to know before it begins; no secret.
create function public.s3seg_info() returns jsonb language sql stable security definer set search_path = '' as
$$ select jsonb_build_object('version', 1, 'public_base_url', public_base_url) from private.config $$;

revoke all on all functions in schema private from public, anon, authenticated, service_role;
grant execute on function private.caller(), private.now(), private.is_text(text, integer) to authenticated;
revoke all on function public.my_account, public.register_image, public.submit_segmentation, public.cancel_task,
  public.delete_task, public.delete_image, public.operator_ensure, public.operator_adjust, public.operator_referenced,
  public.s3seg_info from public, anon, authenticated, service_role;
grant execute on function public.my_account, public.register_image, public.submit_segmentation, public.cancel_task,
  public.delete_task, public.delete_image to authenticated;
grant execute on function public.operator_ensure, public.operator_adjust, public.operator_referenced to service_role;
grant execute on function public.s3seg_info to anon, authenticated, service_role;

notify pgrst, 'reload schema';
