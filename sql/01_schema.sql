-- The two tables: the clients with their balance, and the ledger of everything that was accepted.
-- Safe to apply again: after a crash of PostgreSQL the unlogged tables come back empty, and so do the clients.

-- UNLOGGED: a write costs no write-ahead log. This is the benchmark mode; the price is that a crash of PostgreSQL
-- (not of the server, nor a clean stop) empties both tables.
CREATE UNLOGGED TABLE IF NOT EXISTS clientes (
    id     integer PRIMARY KEY,
    limite bigint  NOT NULL CHECK (limite >= 0),
    -- 64 bits: 2^31 - 1 cents, the most one request can move, fit four thousand million times.
    saldo  bigint  NOT NULL DEFAULT 0,
    -- The rule of the bank, kept by the table itself whoever writes to it.
    CHECK (saldo >= -limite)
) WITH (
    -- Every transaction makes a new version of a client's row. With most of the page free, the new version stays
    -- on the page (a HOT update): no index entry is written, and the next visitor prunes the old ones.
    fillfactor = 10
);

-- No CHECK here, where `clientes` has one: PostgreSQL prepares the checks of a table anew for each INSERT, and three of
-- them made a transaction a third more expensive (23 to 31 us). The server has judged these values before it calls.
CREATE UNLOGGED TABLE IF NOT EXISTS transacoes (
    cliente_id   integer     NOT NULL,
    -- The order of the ledger. It is drawn while the client's row is locked, so it follows the order of commits
    -- within one client; `realizada_em` alone could not tell two transactions of the same microsecond apart.
    -- Not cached in sessions: blocks of cached numbers would break that order.
    id           bigint      GENERATED ALWAYS AS IDENTITY,
    valor        integer     NOT NULL,
    tipo         "char"      NOT NULL,
    descricao    text        NOT NULL,
    -- When this transaction ran. Not now(): that is the same for all transactions of a batch.
    realizada_em timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The only index of the ledger: a statement reads its ten newest rows off one client's end of it, backwards,
    -- however long the ledger is. No second key on `id` alone: nothing looks a row up by it, and each index costs
    -- every insert.
    PRIMARY KEY (cliente_id, id)
);
