-- How much data a backup holds by itself: what its vault is charged when no
-- older backup of the resource is there to hold a part of it.
ALTER TABLE backups ADD COLUMN data_bytes BIGINT NOT NULL DEFAULT 0;
