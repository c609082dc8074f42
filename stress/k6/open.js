// The official peak of the challenge as an open model: 340 requests a second (220 debits, 110 credits, 10 statements),
// each on a connection of its own, begun when it is due whether or not the ones before it are answered. A request that
// could not begin in time is counted as dropped, so slow answers cannot hide (no coordinated omission).

import exec from 'k6/execution';
import http from 'k6/http';
import { Counter, Trend } from 'k6/metrics';

const BASES = __ENV.BASES.split(',');
const CLIENTS = 5;
const VALUE_MAX = 10000;

// From the wish for a connection to the last byte of the answer; `http_req_duration` begins when it is connected.
const withConnect = new Trend('with_connect', true);
const errors = {
  connect: new Counter('errors_connect'),
  read: new Counter('errors_read'),
  timeout: new Counter('errors_timeout'),
  status: new Counter('errors_status'),
};

function scenario(exec, rate) {
  return {
    executor: 'constant-arrival-rate',
    exec,
    rate,
    timeUnit: '1s',
    duration: `${__ENV.SECONDS}s`,
    preAllocatedVUs: Math.ceil(rate / 4),
    maxVUs: rate * 2,
    gracefulStop: '5s',
  };
}

export const options = {
  noConnectionReuse: true,
  discardResponseBodies: true,
  summaryTrendStats: ['avg', 'p(50)', 'p(90)', 'p(99)', 'p(99.9)', 'max'],
  scenarios: {
    debits: scenario('debit', 220),
    credits: scenario('credit', 110),
    statements: scenario('statement', 10),
  },
};

export const debit = () => transact('d');
export const credit = () => transact('c');
export const statement = () => count(http.get(`${base()}/clientes/${client()}/extrato`, { timeout: '5s' }));

// Each request has its own connection, so connections take turns.
function base() {
  return BASES[exec.scenario.iterationInTest % BASES.length];
}

function client() {
  return 1 + Math.floor(Math.random() * CLIENTS);
}

function transact(tipo) {
  const valor = 1 + Math.floor(Math.random() * VALUE_MAX);
  const body = JSON.stringify({ valor, tipo, descricao: 'descricao' });
  const parameters = { headers: { 'Content-Type': 'application/json' }, timeout: '5s' };
  count(http.post(`${base()}/clientes/${client()}/transacoes`, body, parameters));
}

// Format: k6 documentation, "Error codes": 1050 timeout, 1100 to 1199 names, 1200 to 1299 TCP (1211 dialling took too
// long, 1210 and 1212 dialling failed), 1000 and others.
function count(response) {
  const code = response.error_code;
  if (response.status === 200 || response.status === 422) {
    withConnect.add(response.timings.blocked + response.timings.duration);
  } else if (response.status !== 0) {
    errors.status.add(1);
  } else if (code === 1050 || code === 1211) {
    errors.timeout.add(1);
  } else if (code >= 1100 && code < 1220) {
    errors.connect.add(1);
  } else {
    errors.read.add(1);
  }
}

// At the end one line of JSON for `cargo stress run`, as wrk/mix.lua prints it. Metrics that never came are not there.
export function handleSummary({ metrics }) {
  const count = (name) => (metrics[name] ? metrics[name].values.count : 0);
  const latency = (name) => {
    if (!metrics[name]) return null;
    const values = metrics[name].values;
    return {
      mean_ms: values.avg, p50_ms: values['p(50)'], p90_ms: values['p(90)'], p99_ms: values['p(99)'],
      p99_9_ms: values['p(99.9)'], max_ms: values.max,
    };
  };
  const [connect, read, timeout] = ['errors_connect', 'errors_read', 'errors_timeout'].map(count);
  const figures = {
    requests: count('http_reqs') - connect - read - timeout,
    duration_s: Number(__ENV.SECONDS),
    latency: latency('http_req_duration'),
    latency_with_connect: latency('with_connect'),
    errors: { connect, read, timeout, dropped: count('dropped_iterations') },
    refusals: null,
  };
  return { stdout: `${JSON.stringify(figures)}\n` };
}
