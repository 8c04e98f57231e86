-- Signed POST requests that were carried out or are being: the same one sent
-- again gets the first answer. Without an answer, the call is under way or was cut off.
CREATE TABLE calls (
    digest     TEXT PRIMARY KEY,
    status     BIGINT,
    body       TEXT NOT NULL,
    kept_until BIGINT NOT NULL
);
CREATE INDEX calls_by_end ON calls (kept_until);
