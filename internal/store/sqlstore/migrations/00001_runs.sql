-- What this holds is understood by SQLite and by PostgreSQL alike: texts,
-- 64-bit integers and bytes (SQLite keeps bytes as they are under any name of
-- a type). Times are nanoseconds since 1970 UTC. Documents are JSON,
-- compressed with gzip, and stand last in their row: a list then reads no
-- further than the columns that it shows.
--
-- There is no way down: an older Meshbench leaves a newer store alone.

-- +goose Up

-- The last value given out of each sequence. A writer that takes the next one
-- holds the row until it commits, so values appear in order and without gaps.
CREATE TABLE counters (
    name  TEXT   NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('runs', 0), ('events', 0);

CREATE TABLE runs (
    id                TEXT   NOT NULL PRIMARY KEY, -- ULID
    number            BIGINT NOT NULL UNIQUE,      -- for display, never used again
    owner             TEXT   NOT NULL,             -- empty: this machine's user
    workspace         TEXT   NOT NULL,             -- empty: the only one
    visibility        TEXT   NOT NULL,             -- private
    name              TEXT   NOT NULL,
    state             TEXT   NOT NULL,             -- running, finished, interrupted, failed, partial
    headline          TEXT   NOT NULL,
    started_at        BIGINT NOT NULL,
    finished_at       BIGINT,
    trials            BIGINT NOT NULL,             -- how many there are
    experiment_digest TEXT   NOT NULL,             -- SHA-256 of the JSON
    content_hash      TEXT   NOT NULL,             -- empty while running
    lease_holder      TEXT   NOT NULL,             -- empty when ended
    lease_heartbeat   BIGINT NOT NULL,             -- when the holder was last heard of
    lease_expires     BIGINT NOT NULL,
    experiment        BYTEA  NOT NULL,
    document          BYTEA  NOT NULL              -- the run without its trials
);

-- Few runs are running at once; this finds them among all others.
CREATE INDEX runs_by_lease ON runs (state, lease_expires);

CREATE TABLE trials (
    run_id   TEXT   NOT NULL REFERENCES runs (id),
    position BIGINT NOT NULL, -- from 1, in the order of adding
    cell     TEXT   NOT NULL,
    sitting  BIGINT NOT NULL,
    block    BIGINT NOT NULL,
    digest   TEXT   NOT NULL, -- SHA-256 of the JSON
    document BYTEA  NOT NULL,
    PRIMARY KEY (run_id, position)
);

CREATE TABLE events (
    sequence BIGINT NOT NULL PRIMARY KEY,
    at       BIGINT NOT NULL,
    kind     TEXT   NOT NULL,
    run_id   TEXT   NOT NULL -- not a reference: events outlive their run
);
