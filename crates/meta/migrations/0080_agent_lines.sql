-- Agents that connect to the server: what proves who they are, sealed, and the one-time
-- tokens by which they come to it. Such an agent is a resource, so that no two have one id.
ALTER TABLE agents ADD COLUMN sealed_secret TEXT;
CREATE UNIQUE INDEX agents_enrolled ON agents (agent_id) WHERE sealed_secret IS NOT NULL;

CREATE TABLE agent_tokens (
    id            TEXT PRIMARY KEY,
    project_id    TEXT NOT NULL REFERENCES projects (id),
    sealed_secret TEXT NOT NULL,
    created_at    BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL
);
CREATE INDEX agent_tokens_by_project ON agent_tokens (project_id, expires_at);
