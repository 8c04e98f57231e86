-- Replication between two servers. Each has a record of its own: at the source the
-- copy's row is not here, and how far it is follows from the task alone.
-- When the other region was last heard of: a replication is given up after a silence.
ALTER TABLE replications ADD COLUMN heard_at BIGINT;
-- At the destination: the source has given the replication up.
ALTER TABLE replications ADD COLUMN withdrawn BIGINT NOT NULL DEFAULT 0;
CREATE INDEX replications_by_destination ON replications (destination_backup_id);

-- Packs that unfinished work has begun. A collection leaves them, so that work
-- that was interrupted finds them when it goes on.
CREATE TABLE held_packs (
    task_id    TEXT NOT NULL REFERENCES tasks (id),
    project_id TEXT NOT NULL REFERENCES projects (id),
    pack       TEXT NOT NULL,
    PRIMARY KEY (task_id, pack)
);
CREATE INDEX held_packs_by_project ON held_packs (project_id);
