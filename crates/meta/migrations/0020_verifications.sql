-- What verifications found: for each backup that was looked at the result that
-- counts, under the backup's id, and when it was looked at. `quick_at` is the
-- newest look of either level.
CREATE TABLE verifications (
    id          TEXT PRIMARY KEY,
    project_id  TEXT NOT NULL REFERENCES projects (id),
    task_id     TEXT NOT NULL,
    level       TEXT NOT NULL,
    status      TEXT NOT NULL,
    problem     TEXT,
    lost        TEXT,
    verified_at BIGINT NOT NULL,
    quick_at    BIGINT,
    full_at     BIGINT
);
CREATE INDEX verifications_by_project ON verifications (project_id, verified_at, id);
CREATE INDEX verifications_by_status ON verifications (project_id, status, verified_at, id);
