-- The migration of a domain from the services before CBR. There are none here,
-- so it is over as soon as it is asked for, and the record is all there is.
CREATE TABLE domain_migrations (
    domain_id  TEXT PRIMARY KEY REFERENCES domains (id),
    created_at BIGINT NOT NULL
);
