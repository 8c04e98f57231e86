-- The server that an agent is in, as its token said: its scripts bring that server's
-- applications to rest.
ALTER TABLE agents ADD COLUMN server_id TEXT;
ALTER TABLE agent_tokens ADD COLUMN server_id TEXT;
CREATE UNIQUE INDEX agents_by_server ON agents (project_id, server_id) WHERE server_id IS NOT NULL;
