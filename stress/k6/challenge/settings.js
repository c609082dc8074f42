// What a run was told; challenge.js says what each setting means.

export const settings = {
  baseUrl: value('BASE_URL', 'http://localhost:9999').replace(/\/+$/, ''),
  mode: mode(value('MODE', 'open')),
  durationSeconds: seconds('DURATION', '4m'),
  scale: positive('SCALE', '1'),
  pauseSeconds: seconds('PAUSE', '1s'),
  slowMs: positive('SLOW_MS', '250'),
  summaryPath: value('SUMMARY', ''),
  reportPath: value('REPORT', ''),
};

function value(name, otherwise) {
  return __ENV[name] || otherwise;
}

function mode(name) {
  if (name !== 'open' && name !== 'closed') {
    throw new Error(`MODE is open or closed, not ${name}`);
  }
  return name;
}

function seconds(name, otherwise) {
  const text = value(name, otherwise);
  const [, number, unit] = /^(\d+)([sm])$/.exec(text) || [];
  if (number === undefined) {
    throw new Error(`${name} is a time such as 90s or 4m, not ${text}`);
  }
  return Number(number) * (unit === 'm' ? 60 : 1);
}

function positive(name, otherwise) {
  const number = Number(value(name, otherwise));
  if (!(number > 0)) {
    throw new Error(`${name} is a number above 0, not ${value(name, otherwise)}`);
  }
  return number;
}
