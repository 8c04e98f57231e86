-- Of which moment the files of a backup are: snapshot, each_file or none; null for disks.
ALTER TABLE backups ADD COLUMN files_moment TEXT;
