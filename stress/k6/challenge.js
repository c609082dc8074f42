// The challenge as k6 runs it: validations alone, then debits, credits and statements together under a growing load.
//
//   cargo stress k6              on a stack of its own       docker compose up k6 --build --force-recreate   in containers
//   k6 run challenge.js          against a bank that runs
//
// Settings, from the environment or by `k6 run -e NAME=VALUE`:
//   BASE_URL   where the bank is                                                          [http://localhost:9999]
//   MODE       open: each request begins when it is due and on a connection of its own, as in the challenge;
//              closed: users on lasting connections, each waiting for its answer before it asks again     [open]
//   DURATION   of the load, which grows over its first half: 90s, 4m                                        [4m]
//   SCALE      1 is the challenge: up to 220 debits, 110 credits and 10 statements a second, or as many users  [1]
//   PAUSE      closed: a user's shortest time from one request to the next; 0s asks again at once           [1s]
//   SLOW_MS    98 % of the requests have to be answered in less                                            [250]
//   SUMMARY    a file for one line of JSON about the run, which `cargo stress report` reads               [none]
//   REPORT     where k6's own report will be, for the last line of what is printed                       [none]
//
// k6 fails (exit status 99) when a check fails, when a balance cannot be true, when more than 2 % of the answers are
// slow, and when more than 2 % of the requests that were due could not begin.

import { expectedStatuses, setResponseCallback } from 'k6/http';

import { settings } from './challenge/settings.js';
import { plannedRequests, scenarios } from './challenge/scenarios.js';
import { summarize } from './challenge/summary.js';
import { validate } from './challenge/validations.js';

export { comparisons, credits, debits, statements } from './challenge/load.js';

export const options = {
  scenarios: scenarios(),
  thresholds: {
    checks: ['rate==1'],
    balances_inconsistent: ['count==0'],
    answer_time: [`p(98)<${settings.slowMs}`],
    dropped_iterations: [`count<=${Math.floor(plannedRequests() * 0.02)}`],
  },
  noConnectionReuse: settings.mode === 'open',
  // The validations ask 25 times at once, and take a second; on a machine that is busy, many.
  batch: 25,
  batchPerHost: 25,
  setupTimeout: '2m',
  summaryTrendStats: ['count', 'avg', 'p(50)', 'p(90)', 'p(98)', 'p(99)', 'max'],
};

// What a healthy bank answers is no failed request in k6's own count.
setResponseCallback(expectedStatuses(200, 400, 404, 422));

// k6 begins the scenarios when this is done, so nobody else moves the balances that are validated.
export function setup() {
  validate();
}

export function handleSummary(data) {
  return summarize(data);
}
