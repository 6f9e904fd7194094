-- A silence is a row of its own, beside an abnormal value of the same time, and has neither score nor
-- interval.
alter table anomalies
    alter column score drop not null,
    alter column q05 drop not null,
    alter column q95 drop not null,
    drop constraint anomalies_pkey,
    add primary key (series_id, time, kind);
create index anomalies_open on anomalies (kind, series_id) where ended_at is null;
