-- Policies, and which vaults follow them.

-- A policy that an organization set names it; the organization's row may be
-- gone while a vault is still bound, so there is no reference.
CREATE TABLE policies (
    id                     TEXT PRIMARY KEY,
    project_id             TEXT NOT NULL REFERENCES projects (id),
    name                   TEXT NOT NULL,
    operation_type         TEXT NOT NULL,
    policy_type            TEXT NOT NULL,
    enabled                BIGINT NOT NULL,
    definition             TEXT NOT NULL,
    schedule               TEXT NOT NULL,
    organization_policy_id TEXT,
    created_at             BIGINT NOT NULL,
    updated_at             BIGINT NOT NULL
);
CREATE INDEX policies_by_project ON policies (project_id, created_at, id);
CREATE INDEX policies_by_organization ON policies (organization_policy_id);

-- A vault follows one policy of each type at the most.
CREATE TABLE vault_policies (
    vault_id             TEXT NOT NULL REFERENCES vaults (id),
    operation_type       TEXT NOT NULL,
    policy_id            TEXT NOT NULL REFERENCES policies (id),
    destination_vault_id TEXT,
    bound_at             BIGINT NOT NULL,
    PRIMARY KEY (vault_id, operation_type)
);
CREATE INDEX vault_policies_by_policy ON vault_policies (policy_id, bound_at, vault_id);

-- What an organization wants in the projects of its scope. It belongs to the
-- project that made it; the policies it became lie in `policies`.
CREATE TABLE organization_policies (
    id              TEXT PRIMARY KEY,
    project_id      TEXT NOT NULL REFERENCES projects (id),
    domain_id       TEXT NOT NULL REFERENCES domains (id),
    name            TEXT NOT NULL,
    description     TEXT NOT NULL,
    operation_type  TEXT NOT NULL,
    policy_name     TEXT NOT NULL,
    policy_enabled  BIGINT NOT NULL,
    definition      TEXT NOT NULL,
    schedule        TEXT NOT NULL,
    effective_scope TEXT NOT NULL,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL
);
CREATE INDEX organization_policies_by_project ON organization_policies (project_id, created_at, id);
