-- What of a backup's files is not as it was: a count and the first of them; null if there is nothing.
ALTER TABLE backups ADD COLUMN file_problems TEXT;
