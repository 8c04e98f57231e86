-- Whether applications were brought to rest for a backup: null if nobody asked for that, empty if
-- they were, otherwise why not.
ALTER TABLE backups ADD COLUMN app_consistency TEXT;
