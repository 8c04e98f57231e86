-- Agents on hosts, each under the id that it made for itself: two projects may
-- know the same id, and neither learns of the other.
CREATE TABLE agents (
    project_id     TEXT NOT NULL REFERENCES projects (id),
    agent_id       TEXT NOT NULL,
    status         TEXT NOT NULL,
    host_name      TEXT NOT NULL,
    host_ip        TEXT NOT NULL,
    host_os        TEXT NOT NULL,
    host_nickname  TEXT NOT NULL,
    agent_type     TEXT,
    agent_version  TEXT,
    last_active_at BIGINT NOT NULL,
    created_at     BIGINT NOT NULL,
    updated_at     BIGINT NOT NULL,
    PRIMARY KEY (project_id, agent_id)
);
CREATE INDEX agents_by_time ON agents (project_id, created_at, agent_id);

-- What an agent backs up; `position` is the order in which the paths came.
CREATE TABLE agent_paths (
    id            TEXT PRIMARY KEY,
    project_id    TEXT NOT NULL,
    agent_id      TEXT NOT NULL,
    dir_path      TEXT NOT NULL,
    exclude_paths TEXT NOT NULL,
    position      BIGINT NOT NULL,
    UNIQUE (project_id, agent_id, dir_path),
    FOREIGN KEY (project_id, agent_id) REFERENCES agents (project_id, agent_id)
);
