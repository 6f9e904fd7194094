-- Where the extension TimescaleDB is in a new database, `readings` and `forecasts` are hypertables, and their chunks
-- take the place of monthly partitions. A database that has partitions already keeps them.
do $do$
declare
    -- The extension's schema; none where it is not there, or is not wanted.
    extension constant regnamespace := (
        select extnamespace from pg_extension
        where extname = 'timescaledb' and coalesce(current_setting('vidente.timescaledb', true), '') <> 'off'
    );
    errors constant text := pg_get_viewdef('forecast_errors'::regclass);
    made record;
begin
    if extension is null
        or exists (select from pg_inherits where inhparent in ('readings'::regclass, 'forecasts'::regclass)) then
        return;
    end if;
    drop view forecast_errors;
    for made in select * from (values ('readings', 'time'), ('forecasts', 'origin')) as t (name, by_column) loop
        -- A partitioned table cannot become one.
        execute format('create table %I (like %I including all)', made.name || '_new', made.name);
        execute format('drop table %I', made.name);
        execute format('alter table %I rename to %I', made.name || '_new', made.name);
        execute format('alter index %I rename to %I', made.name || '_new_pkey', made.name || '_pkey');
        -- The primary keys are the only indexes, see 0001.
        execute format(
            'select %s.create_hypertable(%L::regclass, %L, chunk_time_interval => interval ''7 days'', '
            'create_default_indexes => false)', extension, made.name, made.by_column
        );
    end loop;
    execute 'create view forecast_errors as ' || errors;
end
$do$;

-- Drops the oldest chunks whose every row is older, two hundred at most: each takes locks until the end. Says how many.
-- As in 0004, with the rights of whoever owns the tables.
do $do$
begin
    execute format($sql$
        create function vidente_drop_chunks(parent text, before timestamptz)
        returns bigint language plpgsql security definer
        set search_path = %1$I, pg_temp set lock_timeout = '3s' as $body$
        declare
            dropped bigint;
        begin
            if parent not in ('readings', 'forecasts') then
                raise exception '%% has no chunks', parent using errcode = '42501';
            end if;
            execute format(
                'select count(*) from %%s.drop_chunks(%%L::regclass, older_than => least(%%L::timestamptz, ('
                'select max(range_end) from (select range_end from timescaledb_information.chunks '
                'where hypertable_schema = %%L and hypertable_name = %%L order by range_end limit 200) oldest)))',
                (select extnamespace::regnamespace from pg_extension where extname = 'timescaledb'), parent, before,
                %1$L, parent
            ) into dropped;
            return dropped;
        end
        $body$
    $sql$, current_schema());
end
$do$;
revoke execute on function vidente_drop_chunks(text, timestamptz) from public;
