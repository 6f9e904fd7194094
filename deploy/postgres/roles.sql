-- The rights of the role that the daemon runs as, `vidente`: it reads and writes rows, owns nothing,
-- and cannot change or drop a table. The tables belong to another role, which only `vidente migrate`
-- needs; the README's chapter "Security" has the steps.
--
-- Run as that owner or a superuser, in Vidente's database, once `vidente migrate` has made the tables,
-- and again after every `vidente migrate` that comes with a new version.
do $$
begin
    if not exists (select from pg_roles where rolname = 'vidente') then
        create role vidente login;
    end if;
end
$$;

-- By default everybody may make temporary tables in a database.
do $$ begin execute format('revoke temporary on database %I from public', current_database()); end $$;
revoke create on schema public from public;
grant usage on schema public to vidente;

-- Readings and forecasts, once written, and what users said, stay as they are.
grant select, insert on series, readings, forecasts, feedback to vidente;
-- Daemons that share a store may bring the same series at the same time.
grant update (key) on series to vidente;
-- Ended anomalies go with retention; the state of a series that is not restored goes, too.
grant select, insert, update, delete on anomalies, series_state to vidente;
grant select, insert, update on models, promotions, training_runs to vidente;
grant select on forecast_errors, _sqlx_migrations to vidente;

-- A partition is made before the first reading of a month.
grant execute on function vidente_add_partition(text, text, timestamptz, timestamptz) to vidente;
-- Needed for [store] retention alone: without it nobody but the owner can remove readings.
grant execute on function vidente_drop_partition(text, text), vidente_drop_chunks(text, timestamptz) to vidente;
