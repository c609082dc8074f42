// Requests to the bank, timed, and the judgement of every balance that it names.

import http from 'k6/http';
import { Counter, Trend } from 'k6/metrics';

import { settings } from './settings.js';

// The limit of each client, in cents.
export const LIMITS = { 1: 100000, 2: 80000, 3: 1000000, 4: 10000000, 5: 500000 };
export const UNKNOWN_CLIENT = 6;
export const KINDS = ['validations', 'debits', 'credits', 'statements', 'comparisons'];

// From the wish for a connection to the last byte of the answer; `http_req_duration` begins when it is connected.
const answerTime = new Trend('answer_time', true);
const answerTimes = Object.fromEntries(KINDS.map((kind) => [kind, new Trend(`answer_time_${kind}`, true)]));
const inconsistent = new Counter('balances_inconsistent');

export function transaction(client, body) {
  const parameters = { headers: { 'Content-Type': 'application/json' }, timeout: '10s', tags: { name: 'transacoes' } };
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return ['POST', `${settings.baseUrl}/clientes/${client}/transacoes`, text, parameters];
}

export function statement(client) {
  return ['GET', `${settings.baseUrl}/clientes/${client}/extrato`, null, { timeout: '10s', tags: { name: 'extrato' } }];
}

// Sends one request and gives its answer: `status`, 0 without one, and `json`, null without any.
export function ask(kind, request) {
  return timed(kind, http.request(...request));
}

export function askAtOnce(kind, requests) {
  return http.batch(requests).map((response) => timed(kind, response));
}

function timed(kind, response) {
  const { blocked, duration } = response.timings;
  answerTime.add(blocked + duration);
  answerTimes[kind].add(blocked + duration);
  return { status: response.status, json: parsed(response.body) };
}

function parsed(body) {
  try {
    return JSON.parse(body);
  } catch {
    return null;
  }
}

// What a 200 to a transaction says about the client, if it can be true.
export function judgeTransaction(client, { status, json }) {
  if (status === 200) {
    judgeBalance(client, json?.saldo, json?.limite);
  }
}

// The same of a statement, which has to be whole and newest first as well.
export function judgeStatement(client, { status, json }) {
  if (status !== 200) {
    return;
  }
  judgeBalance(client, json?.saldo?.total, json?.saldo?.limite);
  const transactions = json?.ultimas_transacoes;
  if (!Array.isArray(transactions) || transactions.length > 10) {
    doubt(`client ${client}: a statement without its transactions, or with more than ten`);
  } else if (transactions.some(({ realizada_em }, i) => i > 0 && realizada_em > transactions[i - 1].realizada_em)) {
    doubt(`client ${client}: a statement that is not newest first`);
  }
}

function judgeBalance(client, balance, limit) {
  if (limit !== LIMITS[client]) {
    doubt(`client ${client}: a limit of ${limit}, not ${LIMITS[client]}`);
  }
  if (!Number.isInteger(balance) || balance < -LIMITS[client]) {
    doubt(`client ${client}: a balance of ${balance}, past the limit of ${LIMITS[client]}`);
  }
}

let isTold = false;

// Counts what cannot be true. Each user tells its first, lest a broken bank fill the terminal.
export function doubt(why) {
  inconsistent.add(1);
  if (!isTold) {
    isTold = true;
    console.error(why);
  }
}
