-- Partitions are made and dropped by functions that run with the rights of whoever owns the tables, so
-- that the daemon's own role need not own them. They take no names but those of monthly partitions, and
-- look up nothing outside the schema that the tables are in.
do $do$
declare
    home constant text := current_schema();
begin
    execute format($sql$
        create function vidente_add_partition(parent text, name text, first timestamptz, after timestamptz)
        returns void language plpgsql security definer set search_path = %1$I, pg_temp as $body$
        begin
            if parent not in ('readings', 'forecasts')
                or name !~ ('^' || parent || '_(early|[0-9]{4}_[0-9]{2})$') then
                raise exception '%% is no partition of %%', name, parent using errcode = '42501';
            end if;
            -- Daemons that share the store take turns.
            perform pg_advisory_xact_lock(hashtext('vidente partitions'));
            if to_regclass(name) is not null then
                return;
            end if;
            execute format('create table %%I (like %%I including defaults including constraints)', name, parent);
            -- Attaching, unlike `create table … partition of`, takes a lock that readers and writers of the
            -- other partitions do not wait for.
            execute format(
                'alter table %%I attach partition %%I for values from (%%s) to (%%L)',
                parent, name, coalesce(quote_literal(first), 'minvalue'), after
            );
        end
        $body$
    $sql$, home);
    execute format($sql$
        create function vidente_drop_partition(parent text, name text)
        returns void language plpgsql security definer
        -- Dropping locks the whole table, and everything queues behind a lock that waits.
        set search_path = %1$I, pg_temp set lock_timeout = '3s' as $body$
        begin
            if parent not in ('readings', 'forecasts')
                or name !~ ('^' || parent || '_(early|[0-9]{4}_[0-9]{2})$') then
                raise exception '%% is no partition of %%', name, parent using errcode = '42501';
            end if;
            execute format('drop table if exists %%I', name);
        end
        $body$
    $sql$, home);
end
$do$;
revoke execute on function
    vidente_add_partition(text, text, timestamptz, timestamptz), vidente_drop_partition(text, text)
    from public;
