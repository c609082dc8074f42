-- The five clients of the challenge. There is never a client 6.
INSERT INTO clientes (id, limite) VALUES
    (1, 100000),
    (2, 80000),
    (3, 1000000),
    (4, 10000000),
    (5, 500000)
-- Applied again, it brings back only the clients that a crash took away.
ON CONFLICT (id) DO NOTHING;
