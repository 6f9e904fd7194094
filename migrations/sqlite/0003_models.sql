-- The registry of models: where each comes from, what each promotion led to, and how far a training
-- run is.
alter table models add column
    origin text not null default 'trained' check (origin in ('trained', 'imported'));
-- Why it is a candidate, or why it was retired.
alter table models add column reason text;
-- The readings it learned from; null if that is not known.
alter table models add column window_start integer;
alter table models add column window_end integer;

alter table training_runs add column
    trigger text check (trigger in ('schedule', 'demand', 'drift', 'command'));
-- Who runs it, so that a row left behind by a process that died can be told.
alter table training_runs add column owner text;
alter table training_runs add column updated_at integer;
alter table training_runs add column window_start integer;
alter table training_runs add column window_end integer;
alter table training_runs add column readings integer;
alter table training_runs add column seed integer;
-- From 0 to 1.
alter table training_runs add column progress real;
create index training_runs_by_model on training_runs (model_id);

-- `previous_id` is the champion that a rollback goes back to; null: none, the online experts alone.
-- `ended_at` is when the probation ended, or the promotion was undone.
create table promotions (
    id integer primary key,
    stream text not null,
    model_id integer not null references models (id),
    previous_id integer references models (id),
    promoted_at integer not null,
    cause text not null check (cause in ('training', 'command', 'rollback')),
    status text not null check (status in ('probation', 'confirmed', 'rolled_back', 'superseded')),
    ended_at integer,
    metrics text
) strict;
create index promotions_by_stream on promotions (stream, id);
create unique index promotions_one_probation on promotions (stream) where status = 'probation';

-- Until now every retired model had been champion, one after the other in the order of versions.
insert into promotions (stream, model_id, previous_id, promoted_at, cause, status)
    select stream, id, lag(id) over (partition by stream order by status = 'champion', version),
           created_at, 'training', 'confirmed'
    from models where status in ('champion', 'retired')
    order by status = 'champion', version;
