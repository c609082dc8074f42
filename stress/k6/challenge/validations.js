// The rules of the bank, asked one by one while nobody else moves a balance. Whatever the balances are at the start, they
// are the same at the end, so it can be repeated on a bank that runs.

import { check } from 'k6';

import {
  LIMITS,
  UNKNOWN_CLIENT,
  ask,
  askAtOnce,
  doubt,
  judgeStatement,
  judgeTransaction,
  statement,
  transaction,
} from './bank.js';
import { settings } from './settings.js';

const INVALID = [
  '{"valor": 1.2, "tipo": "d", "descricao": "devolve"}',
  '{"valor": 1, "tipo": "x", "descricao": "devolve"}',
  '{"valor": 1, "tipo": "c", "descricao": "123456789 e mais um pouco"}',
  '{"valor": 1, "tipo": "c", "descricao": ""}',
  '{"valor": 1, "tipo": "c", "descricao": null}',
];
const NOT_JSON = '{"valor": 1, "tipo": "c", "descricao": "devolve"';
const AT_ONCE = 25;
// One more than a statement shows; together 0, and never below it on the way, for a client at its limit.
const IN_A_ROW = [40, -1, -2, 4, -8, 16, -32, -3, 6, -12, -8];

export function validate() {
  if (ask('validations', statement(1)).status === 0) {
    throw new Error(`no bank answers at ${settings.baseUrl}`);
  }
  for (const client of Object.keys(LIMITS)) {
    validateStatement(client);
    validateLimit(client);
  }
  validateAtOnce(1);
  validateRefusals(1);
  validateUnknownClient();
}

// Each of a row of transactions moves the balance by its value, and the statement shows the last ten, newest first.
function validateStatement(client) {
  let balance = balanceOf(client);
  const made = [];
  IN_A_ROW.forEach((step, i) => {
    made.unshift({ valor: Math.abs(step), tipo: step > 0 ? 'c' : 'd', descricao: `valida ${i}` });
    balance += step;
    expectBalance(client, 'a transaction moves the balance by its value', transact(client, made[0]).saldo, balance);
  });

  const requests = Array(5).fill(statement(client));
  for (const answer of askAtOnce('validations', requests)) {
    judgeStatement(client, answer);
    const { saldo, ultimas_transacoes: transactions } = answer.json || {};
    expectBalance(client, 'five statements at once agree with the last transaction', saldo?.total, balance);
    check(transactions, {
      'a statement has the last ten transactions, newest first': () => areSame(transactions, made.slice(0, 10)),
    });
  }
}

function areSame(shown, expected) {
  const form = ({ valor, tipo, descricao }) => [valor, tipo, descricao].join();
  return Array.isArray(shown) && shown.map(form).join(';') === expected.map(form).join(';');
}

// The whole limit can be used, and not a cent more.
function validateLimit(client) {
  const balance = balanceOf(client);
  const room = balance + LIMITS[client];
  if (room > 0) {
    const { saldo } = transact(client, { valor: room, tipo: 'd', descricao: 'tudo' });
    expectBalance(client, 'a debit reaches the limit', saldo, -LIMITS[client]);
  }
  const { status } = ask('validations', transaction(client, { valor: 1, tipo: 'd', descricao: 'demais' }));
  check(status, { 'a debit past the limit is answered 422': () => status === 422 });
  expectBalance(client, 'a refused debit leaves no trace', balanceOf(client), -LIMITS[client]);
  if (room > 0) {
    const { saldo } = transact(client, { valor: room, tipo: 'c', descricao: 'de volta' });
    expectBalance(client, 'a credit brings the balance back', saldo, balance);
  }
}

// Transactions at the same moment are done one after the other: each leaves a balance of its own, and none is lost.
function validateAtOnce(client) {
  for (const [tipo, step] of Object.entries({ c: 1, d: -1 })) {
    const before = balanceOf(client);
    const request = transaction(client, { valor: 1, tipo, descricao: 'ao mesmo' });
    const answers = askAtOnce('validations', Array(AT_ONCE).fill(request));
    answers.forEach((answer) => judgeTransaction(client, answer));
    const steps = answers.map(({ json }) => (json?.saldo - before) * step).sort((a, b) => a - b);
    check(steps, {
      'each of 25 transactions at once leaves a balance of its own': () => steps.every((n, i) => n === i + 1),
    });
    expectBalance(client, '25 transactions at once all count', balanceOf(client), before + AT_ONCE * step);
  }
}

function validateRefusals(client) {
  const balance = balanceOf(client);
  for (const body of INVALID) {
    const { status } = ask('validations', transaction(client, body));
    check(status, { 'an invalid transaction is answered 422': () => status === 422 });
  }
  const { status } = ask('validations', transaction(client, NOT_JSON));
  check(status, { 'a body that is no JSON is answered 400': () => status === 400 });
  expectBalance(client, 'an invalid transaction leaves no trace', balanceOf(client), balance);
}

function validateUnknownClient() {
  const valid = { valor: 1, tipo: 'c', descricao: 'ninguem' };
  for (const request of [transaction(UNKNOWN_CLIENT, valid), statement(UNKNOWN_CLIENT)]) {
    const { status } = ask('validations', request);
    check(status, { 'an unknown client is answered 404': () => status === 404 });
  }
}

// What a transaction that has to be accepted says.
function transact(client, body) {
  const answer = ask('validations', transaction(client, body));
  judgeTransaction(client, answer);
  check(answer, {
    'a valid transaction is answered 200': ({ status }) => status === 200,
    'a transaction tells the limit of its client': ({ json }) => json?.limite === LIMITS[client],
  });
  return answer.json || {};
}

function balanceOf(client) {
  const answer = ask('validations', statement(client));
  judgeStatement(client, answer);
  check(answer, {
    'a statement is answered 200': ({ status }) => status === 200,
    'a statement tells the limit of its client': ({ json }) => json?.saldo?.limite === LIMITS[client],
  });
  return answer.json?.saldo?.total;
}

function expectBalance(client, rule, balance, expected) {
  if (!check(balance, { [rule]: () => balance === expected })) {
    doubt(`client ${client}: ${rule}, but the balance is ${balance}, not ${expected}`);
  }
}
