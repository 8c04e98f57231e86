-- What a restore reads and which resources it overwrites. While its task is not
-- over, the backup is not deleted and the resources are not used otherwise.
CREATE TABLE restores (
    task_id     TEXT NOT NULL,
    backup_id   TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    PRIMARY KEY (task_id, resource_id)
);
CREATE INDEX restores_by_backup ON restores (backup_id);
CREATE INDEX restores_by_resource ON restores (resource_id);

-- A backup that was taken over from another site's repository, or a disk of
-- one. It stays when the backup is deleted here, so that a synchronisation does
-- not bring it back; `gone_at` says since when the other site has it no more.
CREATE TABLE imports (
    project_id           TEXT NOT NULL REFERENCES projects (id),
    repository_id        TEXT NOT NULL,
    origin_project_id    TEXT NOT NULL,
    origin_backup_id     TEXT NOT NULL,
    origin_checkpoint_id TEXT NOT NULL,
    backup_id            TEXT NOT NULL,
    vault_id             TEXT NOT NULL,
    external             TEXT NOT NULL,
    task_id              TEXT NOT NULL,
    gone_at              BIGINT,
    gone_task_id         TEXT,
    PRIMARY KEY (project_id, repository_id, origin_project_id, origin_backup_id)
);
CREATE INDEX imports_by_backup ON imports (backup_id);
CREATE INDEX imports_by_task ON imports (task_id);
