-- Whether the server that a restore overwrites ran before it was turned off for that.
ALTER TABLE restores ADD COLUMN was_running BIGINT NOT NULL DEFAULT 0;
