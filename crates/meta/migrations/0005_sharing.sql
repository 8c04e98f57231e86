-- A share shows one backup to one other project. The backup stays its owner's;
-- `vault_id` is the vault that the other project took it into.
CREATE TABLE shares (
    id              TEXT PRIMARY KEY,
    backup_id       TEXT NOT NULL REFERENCES backups (id),
    dest_project_id TEXT NOT NULL REFERENCES projects (id),
    status          TEXT NOT NULL,
    vault_id        TEXT,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT,
    UNIQUE (backup_id, dest_project_id)
);
CREATE INDEX shares_by_destination ON shares (dest_project_id, status);
CREATE INDEX shares_by_vault ON shares (vault_id);
