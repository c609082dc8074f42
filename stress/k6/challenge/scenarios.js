// The shape of the load: how much of each kind, and when.

import { settings } from './settings.js';

// At the peak of the challenge: requests a second in open mode, users in closed mode.
const PEAKS = { debits: 220, credits: 110, statements: 10 };
const HALF = `${settings.durationSeconds * 500}ms`;
// So many can wait for their answers at once in a small run, which then drops none.
const USERS_MIN = 50;

export function scenarios() {
  const shape = settings.mode === 'open' ? arrivals : users;
  const shapes = Object.entries(PEAKS).map(([name, peak]) => [name, shape(name, peak * settings.scale)]);
  return { ...Object.fromEntries(shapes), comparisons: oneUser('comparisons') };
}

// How many requests an open run means to begin: half the peak on average while it grows, and then the peak.
export function plannedRequests() {
  const peaks = Object.values(PEAKS).reduce((sum, peak) => sum + peak, 0);
  return peaks * settings.scale * settings.durationSeconds * 0.75;
}

function arrivals(exec, peak) {
  // k6 takes whole numbers only, and a small scale has less than one request a second.
  const inHundredSeconds = Math.max(1, Math.round(peak * 100));
  return {
    executor: 'ramping-arrival-rate',
    exec,
    timeUnit: '100s',
    startRate: Math.min(100, inHundredSeconds),
    stages: [
      { duration: HALF, target: inHundredSeconds },
      { duration: HALF, target: inHundredSeconds },
    ],
    // Enough for a second without any answer. All of them are made before: k6 drops the request for which it has to
    // make a user.
    preAllocatedVUs: Math.max(USERS_MIN, Math.ceil(peak)),
  };
}

function users(exec, peak) {
  const target = Math.max(1, Math.round(peak));
  return {
    executor: 'ramping-vus',
    exec,
    startVUs: 1,
    stages: [
      { duration: HALF, target },
      { duration: HALF, target },
    ],
  };
}

function oneUser(exec) {
  return { executor: 'constant-vus', exec, vus: 1, duration: `${settings.durationSeconds}s` };
}
