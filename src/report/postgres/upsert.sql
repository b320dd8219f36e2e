insert into clamgate_scans as scan (
    scan_id, status, signatures, reason, detail, kind, bucket, key, version_id, etag, size, sha256, definitions_version, scanned_at,
    trace_id, custom, report
)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
on conflict (scan_id) do update set
    status = excluded.status,
    signatures = excluded.signatures,
    reason = excluded.reason,
    detail = excluded.detail,
    kind = excluded.kind,
    bucket = excluded.bucket,
    key = excluded.key,
    version_id = excluded.version_id,
    etag = excluded.etag,
    size = excluded.size,
    sha256 = excluded.sha256,
    definitions_version = excluded.definitions_version,
    scanned_at = excluded.scanned_at,
    trace_id = excluded.trace_id,
    custom = excluded.custom,
    report = excluded.report,
    updated_at = case
        when scan.report - '{cached,scanned_at,timings_ms}'::text[] = excluded.report - '{cached,scanned_at,timings_ms}'::text[]
        then scan.updated_at
        else now()
    end
-- A verdict wins over FAILED, and of two of either sort the later one wins: whatever the order of arrival, the same row remains.
where (excluded.status <> 'FAILED', excluded.scanned_at) > (scan.status <> 'FAILED', scan.scanned_at)
