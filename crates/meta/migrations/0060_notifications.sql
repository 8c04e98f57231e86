-- Whom a project has told of what, and what is on its way. A notification is one
-- event for one target; its text is made when the event is, so that it says the same
-- however often it is sent. A vault's mark says what its targets know of its fill.
CREATE TABLE notification_targets (
    id            TEXT PRIMARY KEY,
    project_id    TEXT NOT NULL REFERENCES projects (id),
    name          TEXT NOT NULL,
    kind          TEXT NOT NULL,
    url           TEXT NOT NULL,
    sealed_secret TEXT NOT NULL,
    addresses     TEXT NOT NULL,
    events        TEXT NOT NULL,
    vault_id      TEXT,
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL
);
CREATE INDEX notification_targets_by_project ON notification_targets (project_id, created_at, id);

CREATE TABLE notifications (
    id          TEXT PRIMARY KEY,
    project_id  TEXT NOT NULL REFERENCES projects (id),
    target_id   TEXT NOT NULL,
    target_name TEXT NOT NULL,
    event       TEXT NOT NULL,
    vault_id    TEXT,
    summary     TEXT NOT NULL,
    body        TEXT NOT NULL,
    status      TEXT NOT NULL,
    attempts    BIGINT NOT NULL,
    last_error  TEXT NOT NULL,
    owner       TEXT,
    lease_until BIGINT,
    not_before  BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    ended_at    BIGINT
);
CREATE INDEX notifications_by_project ON notifications (project_id, created_at, id);
CREATE INDEX notifications_due ON notifications (status, not_before, created_at, id);
CREATE INDEX notifications_by_target ON notifications (target_id, status);
-- Those on their way: few, beside the many that are known.
CREATE INDEX notifications_on_their_way ON notifications (status, lease_until);

CREATE TABLE notifications_dropped (
    project_id TEXT PRIMARY KEY REFERENCES projects (id),
    dropped    BIGINT NOT NULL
);

CREATE TABLE vault_marks (
    vault_id       TEXT PRIMARY KEY,
    over_threshold BIGINT NOT NULL,
    is_full        BIGINT NOT NULL
);
