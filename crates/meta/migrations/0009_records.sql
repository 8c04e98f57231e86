-- What was known of a resource when its backup was made, as JSON; none for
-- backups of earlier versions.
ALTER TABLE backups ADD COLUMN metadata TEXT;

-- The enterprise project of the vault that an operation was about.
ALTER TABLE operation_logs ADD COLUMN enterprise_project_id TEXT NOT NULL DEFAULT '0';
