// The Node peer of the comparison: child_process.fork with `serialization: 'advanced'`.
//
// Prints one line, `figure <value> <tail>`: p50 and p99 in nanoseconds, or a rate per second twice.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

import { BURST, CALLS, EVENTS, check, payload, seedOf } from './payload.mjs';

async function rpc(child) {
  const samples = [];
  await new Promise((resolve) => {
    let seed = 0;
    let start = 0n;
    const call = () => {
      start = process.hrtime.bigint();
      child.send(payload(seed));
    };
    child.on('message', (message) => {
      check(message, seed);
      samples.push(Number(process.hrtime.bigint() - start));
      seed += 1;
      if (seed < CALLS / 10 + CALLS) call();
      else resolve();
    });
    call();
  });
  const sorted = samples.slice(CALLS / 10).sort((a, b) => a - b);
  console.log(`figure ${sorted[CALLS / 2]} ${sorted[(CALLS * 99) / 100]}`);
}

async function rate(child) {
  let perSecond = 0;
  for (const count of [EVENTS / 10, EVENTS]) {
    const received = once(child, 'message');
    const start = process.hrtime.bigint();
    for (let seed = 0; seed < count; seed += 1) {
      child.send(payload(seed));
      if ((seed + 1) % BURST === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await received;
    perSecond = count / (Number(process.hrtime.bigint() - start) / 1e9);
  }
  console.log(`figure ${perSecond} ${perSecond}`);
}

function rpcChild() {
  process.on('message', (message) => {
    const seed = seedOf(message);
    check(message, seed);
    process.send(payload(seed));
  });
}

function rateChild() {
  const counts = [EVENTS / 10, EVENTS];
  let seed = 0;
  process.on('message', (message) => {
    check(message, seed);
    seed += 1;
    if (seed === counts[0]) {
      counts.shift();
      seed = 0;
      process.send('received');
    }
  });
}

const [what, side] = process.argv.slice(2);
if (side === 'child') {
  ({ rpc: rpcChild, rate: rateChild })[what]();
  process.send('ready');
} else {
  const child = fork(fileURLToPath(import.meta.url), [what, 'child'], { serialization: 'advanced' });
  await once(child, 'message');
  await { rpc, rate }[what](child);
  child.disconnect();
}
