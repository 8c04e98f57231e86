-- A replication record: one copy of a backup, made by a task. How far it is
-- follows from the copy's row and the task; without its copy it is history.
CREATE TABLE replications (
    id                        TEXT PRIMARY KEY,
    task_id                   TEXT NOT NULL REFERENCES tasks (id),
    auto_trigger              BIGINT NOT NULL,
    source_region             TEXT NOT NULL,
    source_project_id         TEXT NOT NULL,
    source_vault_id           TEXT NOT NULL,
    source_checkpoint_id      TEXT NOT NULL,
    source_backup_id          TEXT NOT NULL,
    destination_region        TEXT NOT NULL,
    destination_project_id    TEXT NOT NULL,
    destination_vault_id      TEXT NOT NULL,
    destination_checkpoint_id TEXT NOT NULL,
    destination_backup_id     TEXT NOT NULL,
    created_at                BIGINT NOT NULL
);
CREATE INDEX replications_by_source ON replications (source_backup_id);
CREATE INDEX replications_by_task ON replications (task_id);
