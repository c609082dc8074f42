-- Durable mode: what was acknowledged survives a crash of PostgreSQL or of the machine, given fsync, synchronous_commit
-- and full_page_writes. Applied after ../*.sql, while the tables are still empty.
ALTER TABLE clientes SET LOGGED;
ALTER TABLE transacoes SET LOGGED;
