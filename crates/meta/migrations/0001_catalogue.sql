-- The catalogue, for SQLite and PostgreSQL alike: ids are TEXT, instants are
-- BIGINT microseconds UTC, flags are BIGINT 0 or 1, lists and maps are JSON in TEXT.

-- Facts about the catalogue itself, such as which repository it belongs to.
CREATE TABLE facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE domains (
    id   TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

CREATE TABLE projects (
    id         TEXT PRIMARY KEY,
    domain_id  TEXT NOT NULL REFERENCES domains (id),
    name       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (domain_id, name)
);

CREATE TABLE users (
    id            TEXT PRIMARY KEY,
    domain_id     TEXT NOT NULL REFERENCES domains (id),
    name          TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    created_at    BIGINT NOT NULL,
    UNIQUE (domain_id, name)
);

-- Who may work in which project.
CREATE TABLE grants (
    user_id    TEXT NOT NULL REFERENCES users (id),
    project_id TEXT NOT NULL REFERENCES projects (id),
    role       TEXT NOT NULL,
    PRIMARY KEY (user_id, project_id)
);

-- The secret is sealed by the master key: a signature can only be checked with the secret itself.
CREATE TABLE access_keys (
    access_key    TEXT PRIMARY KEY,
    user_id       TEXT NOT NULL REFERENCES users (id),
    sealed_secret TEXT NOT NULL,
    created_at    BIGINT NOT NULL
);

-- A token is kept as its digest: reading the catalogue gives nobody a session.
CREATE TABLE tokens (
    digest     TEXT PRIMARY KEY,
    user_id    TEXT NOT NULL REFERENCES users (id),
    project_id TEXT REFERENCES projects (id),
    issued_at  BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX tokens_by_expiry ON tokens (expires_at);

CREATE TABLE vaults (
    id                    TEXT PRIMARY KEY,
    project_id            TEXT NOT NULL REFERENCES projects (id),
    name                  TEXT NOT NULL,
    description           TEXT NOT NULL,
    object_type           TEXT NOT NULL,
    protect_type          TEXT NOT NULL,
    cloud_type            TEXT NOT NULL,
    consistent_level      TEXT NOT NULL,
    status                TEXT NOT NULL,
    size_gb               BIGINT NOT NULL,
    auto_bind             BIGINT NOT NULL,
    auto_expand           BIGINT NOT NULL,
    smn_notify            BIGINT NOT NULL,
    threshold             BIGINT NOT NULL,
    locked                BIGINT NOT NULL,
    is_multi_az           BIGINT NOT NULL,
    enterprise_project_id TEXT NOT NULL,
    backup_name_prefix    TEXT NOT NULL,
    bind_rules            TEXT NOT NULL,
    tags                  TEXT NOT NULL,
    created_at            BIGINT NOT NULL,
    updated_at            BIGINT NOT NULL
);
CREATE INDEX vaults_by_project ON vaults (project_id, created_at, id);

-- A resource is bound to one vault at the most. What happens to it beyond
-- `removing` follows from its backups and is not stored.
CREATE TABLE vault_resources (
    resource_id    TEXT PRIMARY KEY,
    vault_id       TEXT NOT NULL REFERENCES vaults (id),
    resource_type  TEXT NOT NULL,
    name           TEXT NOT NULL,
    size_bytes     BIGINT NOT NULL,
    removing       BIGINT NOT NULL,
    auto_protect   BIGINT NOT NULL,
    extra_info     TEXT NOT NULL,
    bound_at       BIGINT NOT NULL
);
CREATE INDEX vault_resources_by_vault ON vault_resources (vault_id, bound_at, resource_id);

-- A checkpoint's status follows from its backups; without backups there is none.
CREATE TABLE checkpoints (
    id             TEXT PRIMARY KEY,
    project_id     TEXT NOT NULL REFERENCES projects (id),
    vault_id       TEXT NOT NULL,
    vault_name     TEXT NOT NULL,
    name           TEXT NOT NULL,
    description    TEXT NOT NULL,
    retention_days BIGINT NOT NULL,
    skipped        TEXT NOT NULL,
    created_at     BIGINT NOT NULL
);
CREATE INDEX checkpoints_by_vault ON checkpoints (vault_id);

-- One resource's copy in a checkpoint; the disks of a server are children of its backup.
CREATE TABLE backups (
    id                    TEXT PRIMARY KEY,
    project_id            TEXT NOT NULL REFERENCES projects (id),
    vault_id              TEXT NOT NULL,
    checkpoint_id         TEXT NOT NULL,
    parent_id             TEXT REFERENCES backups (id),
    name                  TEXT NOT NULL,
    description           TEXT NOT NULL,
    status                TEXT NOT NULL,
    resource_id           TEXT NOT NULL,
    resource_name         TEXT NOT NULL,
    resource_type         TEXT NOT NULL,
    size_bytes            BIGINT NOT NULL,
    used_bytes            BIGINT NOT NULL,
    image_type            TEXT NOT NULL,
    incremental           BIGINT NOT NULL,
    auto_trigger          BIGINT NOT NULL,
    system_disk           BIGINT NOT NULL,
    enterprise_project_id TEXT NOT NULL,
    root                  TEXT,
    error_message         TEXT,
    created_at            BIGINT NOT NULL,
    updated_at            BIGINT NOT NULL,
    protected_at          BIGINT,
    expired_at            BIGINT
);
CREATE INDEX backups_by_project ON backups (project_id, created_at, id);
CREATE INDEX backups_by_vault ON backups (vault_id, created_at, id);
CREATE INDEX backups_by_checkpoint ON backups (checkpoint_id);
CREATE INDEX backups_by_parent ON backups (parent_id);
CREATE INDEX backups_by_resource ON backups (resource_id, created_at);

-- Durable work. A task that has an owner is at work until its lease ends.
CREATE TABLE tasks (
    id          TEXT PRIMARY KEY,
    kind        TEXT NOT NULL,
    payload     TEXT NOT NULL,
    state       TEXT NOT NULL,
    step        BIGINT NOT NULL,
    attempts    BIGINT NOT NULL,
    owner       TEXT,
    lease_until BIGINT,
    not_before  BIGINT NOT NULL,
    done_bytes  BIGINT NOT NULL,
    total_bytes BIGINT NOT NULL,
    error_code  TEXT NOT NULL,
    error_text  TEXT NOT NULL,
    request_id  TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    started_at  BIGINT,
    ended_at    BIGINT,
    updated_at  BIGINT NOT NULL
);
CREATE INDEX tasks_by_state ON tasks (state, not_before);

-- The public record of a task: who is told what. Its status is the task's own.
CREATE TABLE operation_logs (
    id             TEXT PRIMARY KEY REFERENCES tasks (id),
    project_id     TEXT NOT NULL REFERENCES projects (id),
    vault_id       TEXT NOT NULL,
    vault_name     TEXT NOT NULL,
    checkpoint_id  TEXT,
    policy_id      TEXT,
    operation_type TEXT NOT NULL,
    resource_id    TEXT,
    resource_name  TEXT,
    resource_type  TEXT,
    detail         TEXT NOT NULL,
    created_at     BIGINT NOT NULL
);
CREATE INDEX operation_logs_by_project ON operation_logs (project_id, created_at, id);
