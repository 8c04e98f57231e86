-- What lists and usage are read by. An index of whole backups leaves out those
-- of single disks, which are found by their parents, and the other way round.
-- With the parent in it, SQLite answers from the index alone.
DROP INDEX backups_by_project;
CREATE INDEX backups_by_project ON backups (project_id, created_at, id, parent_id)
    WHERE parent_id IS NULL;
DROP INDEX backups_by_parent;
CREATE INDEX backups_by_parent ON backups (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX usage_by_vault ON backups (vault_id, resource_id, status, used_bytes, parent_id)
    WHERE parent_id IS NULL;
CREATE INDEX restoring_by_resource ON backups (resource_id, status)
    WHERE parent_id IS NULL AND status IN ('waiting_restore', 'restoring');

-- How many backups a project has, those of single disks not counted: a list
-- says so on every page.
CREATE TABLE backup_counts (
    project_id TEXT PRIMARY KEY REFERENCES projects (id),
    backups    BIGINT NOT NULL
);
INSERT INTO backup_counts (project_id, backups)
    SELECT project_id, COUNT(*) FROM backups WHERE parent_id IS NULL GROUP BY project_id;
