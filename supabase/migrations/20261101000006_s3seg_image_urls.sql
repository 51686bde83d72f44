-- As before, but an image is also found by the URL that it would have today: the public base URL may have changed since
-- it was stored. A task keeps the URL that was sent, so its results are stored under the same base.
create or replace function public.submit_segmentation(p_image_url text, p_text_prompts text[],
    p_project_id uuid default null, p_idempotency_key text default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  -- holding the account's lock, this user's submits run one after another: no double spend, no race of two keys
  account public.profiles := private.require_account();
  asked text := private.fingerprint(p_image_url, p_text_prompts, p_project_id);
  moment timestamptz := private.now();
  t public.segmentation_results; image uuid; cost integer; rate jsonb;
begin
  if not coalesce(private.are_prompts(p_text_prompts), false) then
    raise exception using errcode = 'PT400', message = 'BAD_PROMPTS';
  end if;
  t := private.repeat_of(account.user_id, asked, p_idempotency_key);
  if t.id is not null then
    return jsonb_build_object('task', to_jsonb(t), 'created', false, 'rate', null);
  end if;
  rate := private.count_action(account, 'segment');

  select i.id into image from public.images i, private.config c
    where i.user_id = account.user_id and (i.image_url = p_image_url or (
      starts_with(p_image_url, c.public_base_url || '/')
      and i.object_key = substr(p_image_url, length(c.public_base_url) + 2)));
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
  return jsonb_build_object('task', to_jsonb(t), 'created', true, 'rate', rate);
end $$;
