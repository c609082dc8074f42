-- A client's statement as the API sends it: balance, limit, time, and the ten newest transactions, newest first.
-- NULL for an unknown client.
--
-- One SELECT is one snapshot: the balance is exactly the sum of the ledger it is shown with.
CREATE OR REPLACE FUNCTION GetSaldoClienteById(id integer) RETURNS jsonb
LANGUAGE plpgsql STABLE
-- Without statistics (a fresh or never analyzed table) the planner takes a client's ledger for a handful of rows and
-- reads and sorts all of it, and keeps that plan. With these two out of reach, the ten newest rows come off the index
-- in order, whatever the statistics say: the cost stays the same with ten rows and with ten million.
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
BEGIN
    RETURN (
        SELECT jsonb_build_object(
            'saldo', jsonb_build_object(
                'total', c.saldo,
                'limite', c.limite,
                'data_extrato', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
            ),
            'ultimas_transacoes', coalesce(
                (
                    SELECT jsonb_agg(
                        jsonb_build_object(
                            'valor', t.valor,
                            'tipo', t.tipo,
                            'descricao', t.descricao,
                            'realizada_em', to_char(t.realizada_em AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                        )
                    )
                    FROM (
                        SELECT u.valor, u.tipo, u.descricao, u.realizada_em
                        FROM transacoes AS u
                        WHERE u.cliente_id = c.id
                        ORDER BY u.id DESC
                        LIMIT 10
                    ) AS t
                ),
                '[]'
            )
        )
        FROM clientes AS c
        WHERE c.id = GetSaldoClienteById.id
    );
END;
$$;
