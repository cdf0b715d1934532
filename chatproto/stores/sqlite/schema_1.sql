-- Version 1 of the store. Times are Unix times in seconds.

-- The one row of what is true of the whole file.
CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    last_id INTEGER NOT NULL,     -- the last id that was given to an event
    delivered INTEGER NOT NULL    -- the last id whose event was handed out for delivery
);
INSERT INTO state VALUES (1, 0, 0);

-- A room is known once something has happened in it. Inboxes are rooms whose name begins with @;
-- a room whose name begins with @~ is to be removed.
CREATE TABLE rooms (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    first INTEGER NOT NULL DEFAULT 1,   -- the number of the first event that is kept
    seq INTEGER NOT NULL DEFAULT 0,     -- the number of the last event
    indexed INTEGER,                    -- the number of the last event in the index; NULL: none is
    topic TEXT NOT NULL DEFAULT '',
    topic_by TEXT NOT NULL DEFAULT ''
);
CREATE INDEX unindexed ON rooms (id) WHERE indexed < seq;

-- The events of a room lie together, in their order: numbers have no gaps, and ids grow with them,
-- so that a place is found by halving, whether it is a number, an id or a time.
CREATE TABLE events (
    room INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    id INTEGER NOT NULL,
    time REAL NOT NULL,
    kind TEXT NOT NULL,
    sender TEXT NOT NULL,
    text TEXT NOT NULL,
    origin INTEGER NOT NULL,
    here INTEGER NOT NULL,
    recipient TEXT NOT NULL,
    PRIMARY KEY (room, seq)
) WITHOUT ROWID;

-- The index for searching, without a copy of the text; its rowid is the id of the event.
CREATE VIRTUAL TABLE words USING fts5 (
    room, sender, text,
    content = '', detail = 'column', tokenize = 'unicode61 remove_diacritics 2'
);

CREATE TABLE accounts (
    name TEXT PRIMARY KEY,        -- the folded nick
    nick TEXT NOT NULL,
    secret TEXT NOT NULL,
    operator INTEGER NOT NULL,
    created REAL NOT NULL,
    address TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE positions (
    account TEXT NOT NULL,
    room TEXT NOT NULL,
    position INTEGER,             -- the id of the last event shown; NULL: the account is there now
    PRIMARY KEY (account, room)
) WITHOUT ROWID;

CREATE TABLE restrictions (
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    until REAL NOT NULL,          -- 0: for ever
    operator TEXT NOT NULL,
    why TEXT NOT NULL,
    time REAL NOT NULL,
    PRIMARY KEY (kind, subject)
) WITHOUT ROWID;
