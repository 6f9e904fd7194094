-- The registry of models: where each comes from, what each promotion led to, and how far a training
-- run is.
alter table models
    add column origin text not null default 'trained' check (origin in ('trained', 'imported')),
    -- Why it is a candidate, or why it was retired.
    add column reason text,
    -- The readings it learned from; null if that is not known.
    add column window_start timestamptz,
    add column window_end timestamptz;

alter table training_runs
    add column trigger text check (trigger in ('schedule', 'demand', 'drift', 'command')),
    -- Who runs it, so that a row left behind by a process that died can be told.
    add column owner text,
    add column updated_at timestamptz,
    add column window_start timestamptz,
    add column window_end timestamptz,
    add column readings bigint,
    add column seed bigint,
    -- From 0 to 1.
    add column progress double precision;
create index training_runs_by_model on training_runs (model_id);

-- `previous_id` is the champion that a rollback goes back to; null: none, the online experts alone.
-- `ended_at` is when the probation ended, or the promotion was undone.
create table promotions (
    id bigint generated always as identity primary key,
    stream text not null,
    model_id bigint not null references models (id),
    previous_id bigint references models (id),
    promoted_at timestamptz not null,
    cause text not null check (cause in ('training', 'command', 'rollback')),
    status text not null check (status in ('probation', 'confirmed', 'rolled_back', 'superseded')),
    ended_at timestamptz,
    metrics jsonb
);
create index promotions_by_stream on promotions (stream, id);
create unique index promotions_one_probation on promotions (stream) where status = 'probation';

-- Until now every retired model had been champion, one after the other in the order of versions.
insert into promotions (stream, model_id, previous_id, promoted_at, cause, status)
    select stream, id, lag(id) over (partition by stream order by status = 'champion', version),
           created_at, 'training', 'confirmed'
    from models where status in ('champion', 'retired')
    order by status = 'champion', version;
