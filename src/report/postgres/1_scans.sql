-- One row for each scan_id: the same object version, scanned with the same definitions and options.
create table if not exists clamgate_scans (
    scan_id text primary key,
    -- CLEAN, INFECTED, SUSPICIOUS, UNSCANNABLE, SKIPPED or FAILED
    status text not null,
    signatures text[] not null,
    reason text,
    detail text,
    -- s3, file or stream
    kind text not null,
    bucket text,
    -- The object's key, the file's path or the stream's name
    key text not null,
    version_id text,
    etag text,
    size bigint not null,
    sha256 text,
    definitions_version bigint not null,
    scanned_at timestamptz not null,
    trace_id text,
    custom jsonb,
    -- The whole report, clamgate.scan/1
    report jsonb not null,
    created_at timestamptz not null default now(),
    -- When anything but scanned_at and the report's timings_ms last changed
    updated_at timestamptz not null default now()
);

create index if not exists clamgate_scans_object on clamgate_scans (bucket, key, version_id);
create index if not exists clamgate_scans_status on clamgate_scans (status, scanned_at);
create index if not exists clamgate_scans_updated on clamgate_scans (updated_at);

-- The latest scan of each object version; in a bucket without versions, of each key.
create or replace view clamgate_latest as
select scan.*
from clamgate_scans scan
where scan.kind = 's3' and not exists (
    select from clamgate_scans later
    where later.bucket = scan.bucket
      and later.key = scan.key
      and later.version_id is not distinct from scan.version_id
      and (later.scanned_at, later.scan_id) > (scan.scanned_at, scan.scan_id)
);
