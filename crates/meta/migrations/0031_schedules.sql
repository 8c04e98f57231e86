-- When a policy runs next: its slot, and when in the window behind that the run
-- begins; never, if null. Policies of an earlier version are looked at at once.
ALTER TABLE policies ADD COLUMN next_slot BIGINT;
ALTER TABLE policies ADD COLUMN next_run_at BIGINT DEFAULT 0;
CREATE INDEX policies_by_next_run ON policies (next_run_at);

-- The policy that made a backup, and what it did with what it made then.
ALTER TABLE backups ADD COLUMN policy_id TEXT;
ALTER TABLE backups ADD COLUMN made_under TEXT;
CREATE INDEX backups_by_expiry ON backups (expired_at);
