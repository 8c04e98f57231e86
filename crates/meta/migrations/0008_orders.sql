-- How a vault is paid for, and the orders behind it. A vault that is paid in
-- advance has `paid_until`; all others are paid by use.
ALTER TABLE vaults ADD COLUMN order_id TEXT;
ALTER TABLE vaults ADD COLUMN product_id TEXT;
ALTER TABLE vaults ADD COLUMN paid_until BIGINT;
ALTER TABLE vaults ADD COLUMN demand_billing BIGINT NOT NULL DEFAULT 0;
ALTER TABLE vaults ADD COLUMN availability_zone TEXT;
ALTER TABLE vaults ADD COLUMN sys_lock_source_service TEXT;
ALTER TABLE vaults ADD COLUMN user_id TEXT;

-- One order may be about several vaults. Orders outlive their vaults.
CREATE TABLE orders (
    id         TEXT NOT NULL,
    project_id TEXT NOT NULL REFERENCES projects (id),
    vault_id   TEXT NOT NULL,
    product_id TEXT NOT NULL,
    size_gb    BIGINT NOT NULL,
    months     BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (id, vault_id)
);
