// What is left of a run: a table for the terminal, and one line of JSON for `cargo stress report`.

import { KINDS } from './bank.js';
import { settings } from './settings.js';

// Raised with that of `Summary` in stress/src/reports/summary.rs, which reads it.
const FORMAT = 1;

// Format: k6 documentation, "Custom summary".
export function summarize(data) {
  // The validations gave up: k6 says why, and there is nothing to sum up.
  if (!data.metrics.iterations?.values.count) {
    return {};
  }
  const durationMs = data.state.testRunDurationMs;
  const summary = {
    format: FORMAT,
    began_at_unix_s: Math.round((Date.now() - durationMs) / 1000),
    load: `k6 ${settings.mode}`,
    place: settings.baseUrl,
    setup: `${settings.durationSeconds} s, scale ${settings.scale}`,
    cases: [row(data, 'all', 'answer_time')],
    scenarios: KINDS.map((kind) => row(data, kind, `answer_time_${kind}`)),
    thresholds: thresholds(data.metrics),
    failed_checks: failedChecks(data.root_group),
    balances_compared: data.metrics.balances_compared?.values.count || 0,
    balances_inconsistent: data.metrics.balances_inconsistent?.values.count || 0,
  };
  const files = settings.summaryPath ? { [settings.summaryPath]: `${JSON.stringify(summary)}\n` } : {};
  const report = settings.reportPath ? `report: ${settings.reportPath}\n` : '';
  return { stdout: table(summary) + report, ...files };
}

function row(data, name, metric) {
  const values = data.metrics[metric]?.values || {};
  const requests = values.count || 0;
  return {
    name,
    requests,
    requests_per_second: rounded((requests / data.state.testRunDurationMs) * 1000),
    p50_ms: rounded(values['p(50)']),
    p99_ms: rounded(values['p(99)']),
    max_ms: rounded(values.max),
  };
}

function rounded(number = 0) {
  return Math.round(number * 1000) / 1000;
}

function thresholds(metrics) {
  // k6 gives them in no order.
  const byName = Object.entries(metrics).sort(([a], [b]) => (a < b ? -1 : 1));
  return byName.flatMap(([metric, { thresholds: limits = {}, values }]) =>
    Object.entries(limits).map(([limit, { ok }]) => {
      const key = limit.split(/[<>=]/)[0];
      return { metric, limit, value: rounded(values[key]), is_kept: ok };
    })
  );
}

function failedChecks({ checks, groups }) {
  const own = checks.filter(({ fails }) => fails > 0).map(({ name, fails, passes }) => ({ name, fails, passes }));
  return [...own, ...groups.flatMap(failedChecks)];
}

function table({ cases, scenarios, thresholds, failed_checks: failed }) {
  const line = (name, cells) => `${name.padEnd(14)}${cells.map((cell) => String(cell).padStart(11)).join('')}`;
  const lines = [line('', ['requests', 'req/s', 'p50 ms', 'p99 ms', 'max ms'])];
  for (const { name, requests, requests_per_second: rate, ...times } of [...scenarios, ...cases]) {
    const figures = [rate, times.p50_ms, times.p99_ms, times.max_ms].map((figure) => figure.toFixed(1));
    lines.push(line(name, [requests, ...figures]));
  }
  lines.push('');
  for (const { metric, limit, value, is_kept: isKept } of thresholds) {
    lines.push(`${isKept ? 'ok    ' : 'FAILED'}  ${metric} ${limit}: ${value}`);
  }
  lines.push(...failed.map(({ name, fails, passes }) => `FAILED  ${name}: ${fails} of ${fails + passes} times`));
  return `\n${lines.join('\n')}\n`;
}
