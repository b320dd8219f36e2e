-- The latest scan of each object version. In a bucket without versions, of each ETag that a key has had: the scan of an older content can end
-- after that of a newer one.
create or replace view clamgate_latest as
select scan.*
from clamgate_scans scan
where scan.kind = 's3' and not exists (
    select from clamgate_scans later
    where later.bucket = scan.bucket
      and later.key = scan.key
      and later.version_id is not distinct from scan.version_id
      and (scan.version_id is not null or later.etag is not distinct from scan.etag)
      and (later.scanned_at, later.scan_id) > (scan.scanned_at, scan.scan_id)
);
