// A second or two of everything that the dashboard of k6 shows: answers of several statuses, a server that is not there,
// a check, and more iterations than the one VU can do.

import http from 'k6/http';
import { check, sleep } from 'k6';

export const options = {
  scenarios: {
    mixed: {
      executor: 'constant-arrival-rate',
      exec: 'mixed',
      rate: 20,
      timeUnit: '1s',
      duration: '2s',
      preAllocatedVUs: 1,
      maxVUs: 1,
    },
  },
};

export function mixed() {
  const body = JSON.stringify({ valor: 1, tipo: 'c', descricao: 'k6' });
  const answer = http.post(`${__ENV.BASE}/clientes/1/transacoes`, body);
  check(answer, { 'a credit is accepted': (response) => response.status === 200 });
  http.get(`${__ENV.BASE}/nowhere`);
  http.get('http://127.0.0.1:1/');
  sleep(0.2);
}
