-- One credit or debit: checks the limit, moves the balance, writes the ledger.
--
-- saldo and limite tell the three outcomes apart without an exception, which would undo the whole batch:
--   accepted        saldo = the new balance, limite
--   refused debit   saldo IS NULL, limite; nothing was written
--   unknown client  both NULL; nothing was written
CREATE OR REPLACE FUNCTION InsertTransacao(
    id        integer,
    valor     integer,
    tipo      text,
    descricao text,
    OUT saldo  bigint,
    OUT limite bigint
)
-- PL/pgSQL keeps its plans for the life of the connection; a function in SQL would be planned at each call.
LANGUAGE plpgsql AS $$
DECLARE
    variacao CONSTANT bigint := CASE InsertTransacao.tipo WHEN 'd' THEN -InsertTransacao.valor
                                                          ELSE InsertTransacao.valor END;
BEGIN
    -- Check and change in one statement: it locks the row once, and after waiting for another transaction's lock it
    -- judges the balance which that one left. A credit is accepted whatever the balance.
    -- ANCHOR: update
    UPDATE clientes AS c
       SET saldo = c.saldo + variacao
     WHERE c.id = InsertTransacao.id
       AND (variacao > 0 OR c.saldo + variacao >= -c.limite)
    RETURNING c.saldo, c.limite
      INTO InsertTransacao.saldo, InsertTransacao.limite;
    -- ANCHOR_END: update

    IF FOUND THEN
        INSERT INTO transacoes (cliente_id, valor, tipo, descricao)
        VALUES (InsertTransacao.id, InsertTransacao.valor, InsertTransacao.tipo::"char", InsertTransacao.descricao);
    ELSE
        SELECT c.limite INTO InsertTransacao.limite FROM clientes AS c WHERE c.id = InsertTransacao.id;
    END IF;
END;
$$;
