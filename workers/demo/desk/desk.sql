-- The desk's tables. `effects` has one row for each side effect. Its rows can't be changed or deleted.

CREATE TABLE customers (id TEXT PRIMARY KEY, name TEXT, email TEXT UNIQUE, street TEXT, town TEXT, postcode TEXT);

CREATE TABLE orders (
    id TEXT PRIMARY KEY, customer TEXT REFERENCES customers, item TEXT, quantity INT, total_cents INT, status TEXT,
    placed_on TEXT, promised_on TEXT, delivered_on TEXT, street TEXT, town TEXT, postcode TEXT
);
CREATE INDEX orders_of ON orders (customer);

CREATE TABLE payments (id INTEGER PRIMARY KEY, "order" TEXT REFERENCES orders, captured_cents INT);
CREATE INDEX payments_of ON payments ("order");

CREATE TABLE articles (id TEXT PRIMARY KEY, title TEXT, body TEXT);

CREATE TABLE tickets (
    id TEXT PRIMARY KEY, email TEXT, subject TEXT, body TEXT, opened_on TEXT,
    status TEXT,    -- open, closed, escalated
    team TEXT, priority TEXT, reply TEXT,
    cites TEXT      -- ids of the articles and tickets behind the reply, separated by spaces
);
CREATE INDEX tickets_of ON tickets (email);

CREATE TABLE effects (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,   -- the idempotency key of the tool call; one key has one effect
    kind TEXT NOT NULL,         -- refund, address, escalation, close
    ref TEXT NOT NULL,          -- the object of the effect: an order, a team or a ticket
    amount INT NOT NULL,        -- cents
    ticket TEXT NOT NULL REFERENCES tickets,
    at INT NOT NULL             -- ms since the epoch
);
CREATE INDEX effects_of ON effects (ticket, kind, ref);
CREATE TRIGGER effects_stay BEFORE UPDATE ON effects BEGIN SELECT RAISE(ABORT, 'effects is append-only'); END;
CREATE TRIGGER effects_last BEFORE DELETE ON effects BEGIN SELECT RAISE(ABORT, 'effects is append-only'); END;
