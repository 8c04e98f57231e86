-- Somebody asked that a task be ended.
ALTER TABLE tasks ADD COLUMN cancel_asked BIGINT NOT NULL DEFAULT 0;
