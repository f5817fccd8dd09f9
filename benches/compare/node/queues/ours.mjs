// FlowMesh's side of the Node lines of the table of queues: a worker whose handler does nothing, durability `os`.
//
// `local`: the worker is in the host. `session`: this process is a client, the host is a child process.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { connect, open } from '../../../../bindings/node/dist/index.mjs';
import { PAYLOAD, counts, print } from './work.mjs';

const QUEUE = 'compare';
const BULK = 1_000;

async function work(mesh, concurrency) {
  const queue = await mesh.queue(QUEUE);
  const [warm, count] = counts(100_000);
  for (const jobs of [warm, count]) {
    const bulk = Array.from({ length: Math.min(BULK, jobs) }, () => ({ payload: PAYLOAD }));
    for (let added = 0; added < jobs; added += bulk.length) await queue.enqueueMany(bulk);
    let left = jobs;
    let allDone;
    const done = new Promise((resolve) => (allDone = resolve));
    const startedAt = process.hrtime.bigint();
    const worker = mesh.process(
      QUEUE,
      async () => {
        left -= 1;
        if (left === 0) allDone();
      },
      { concurrency },
    );
    await done;
    // Acks what is done.
    await worker.stop();
    if (jobs === count) print(count, startedAt);
    const { done: acked } = worker.stats();
    if (acked !== jobs) throw new Error(`${acked} of ${jobs} jobs were acked`);
  }
}

async function host(directory) {
  const mesh = await open(directory);
  await mesh.declareQueue(QUEUE, { durability: 'os' });
  return mesh;
}

const [where, detail] = process.argv.slice(2);
if (where === 'host') {
  const mesh = await host(detail);
  process.send('ready');
  await once(process, 'disconnect');
  await mesh.close();
} else {
  const directory = await mkdtemp(join(process.env.FLOWMESH_COMPARE_DIRECTORY ?? tmpdir(), 'queues-'));
  if (where === 'local') {
    const mesh = await host(directory);
    await work(mesh, Number(detail));
    await mesh.close();
  } else {
    const child = fork(fileURLToPath(import.meta.url), ['host', directory]);
    await once(child, 'message');
    const mesh = await connect(directory);
    await work(mesh, Number(detail));
    await mesh.close();
    child.disconnect();
    await once(child, 'exit');
  }
  await rm(directory, { recursive: true });
}
