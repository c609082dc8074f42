// One iteration of each scenario of the load.

import { check, sleep } from 'k6';
import { Counter } from 'k6/metrics';

import { LIMITS, ask, doubt, judgeStatement, judgeTransaction, statement, transaction } from './bank.js';
import { settings } from './settings.js';

const CLIENTS = Object.keys(LIMITS);
const VALUE_MAX = 10000;
const SECONDS_BETWEEN_COMPARISONS = 1;

const compared = new Counter('balances_compared');

export function debits() {
  paced(() => {
    const { status } = transact('debits', 'd');
    check(status, { 'a debit is answered 200, or 422 past the limit': () => status === 200 || status === 422 });
  });
}

export function credits() {
  paced(() => {
    const { status } = transact('credits', 'c');
    check(status, { 'a credit is answered 200': () => status === 200 });
  });
}

export function statements() {
  paced(() => {
    read('statements', someClient());
  });
}

// Two statements, one right after the other, while others move the balance: the later total has to be the earlier one
// and what the ledger gained in between.
export function comparisons() {
  const client = someClient();
  const earlier = read('comparisons', client);
  const later = read('comparisons', client);
  const gained = earlier && later ? gainedBetween(earlier, later) : null;
  if (gained !== null) {
    compared.add(1);
    const expected = earlier.saldo.total + gained;
    if (later.saldo.total !== expected) {
      doubt(`client ${client}: a balance of ${later.saldo.total} where the ledger says ${expected}`);
    }
  }
  sleep(SECONDS_BETWEEN_COMPARISONS);
}

// The sum of what is newer than the newest of `earlier`; null when that is no longer among the ten.
function gainedBetween(earlier, later) {
  const [newest] = earlier.ultimas_transacoes;
  const isNewest = (other) => JSON.stringify(other) === JSON.stringify(newest);
  const count = later.ultimas_transacoes.findIndex(isNewest);
  if (newest === undefined || count < 0) {
    return null;
  }
  const signed = ({ tipo, valor }) => (tipo === 'c' ? valor : -valor);
  return later.ultimas_transacoes.slice(0, count).reduce((sum, transaction) => sum + signed(transaction), 0);
}

function transact(kind, tipo) {
  const client = someClient();
  const valor = 1 + Math.floor(Math.random() * VALUE_MAX);
  const answer = ask(kind, transaction(client, { valor, tipo, descricao: mark() }));
  judgeTransaction(client, answer);
  return answer;
}

function read(kind, client) {
  const answer = ask(kind, statement(client));
  judgeStatement(client, answer);
  const isAnswered = check(answer, { 'a statement is answered 200': ({ status }) => status === 200 });
  return isAnswered ? answer.json : null;
}

function someClient() {
  return CLIENTS[Math.floor(Math.random() * CLIENTS.length)];
}

// Ten characters that nobody else writes, so that a transaction is found again in a statement.
function mark() {
  return Math.random().toString(36).slice(2, 12).padEnd(10, '-');
}

// A user waits before the next request; in open mode the next one is due anyway.
function paced(request) {
  const begun = Date.now();
  request();
  if (settings.mode === 'closed') {
    sleep(Math.max(0, settings.pauseSeconds - (Date.now() - begun) / 1000));
  }
}
