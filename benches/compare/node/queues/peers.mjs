// The Node peer of the table of queues: a BullMQ worker whose processor does nothing.
//
// Jobs are added first; the figure is how many the worker completes in a second. Redis is a server of this round alone,
// `appendonly yes`, `appendfsync everysec`, reached over TCP as BullMQ does by default.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

import { Queue, Worker } from 'bullmq';

import { PAYLOAD, counts, print } from './work.mjs';

const HOST = '127.0.0.1';
const BULK = 500;

async function redisServer() {
  const free = createServer().listen(0, HOST);
  await once(free, 'listening');
  const { port } = free.address();
  free.close();
  const directory = process.env.FLOWMESH_COMPARE_DIRECTORY ?? '.';
  const settings = ['--port', port, '--bind', HOST, '--dir', directory, '--save', ''];
  const durability = ['--appendonly', 'yes', '--appendfsync', 'everysec'];
  const server = spawn('redis-server', [...settings, ...durability], { stdio: 'ignore' });
  for (let tries = 0; ; tries += 1) {
    const probe = connect(port, HOST);
    const outcome = await Promise.race([once(probe, 'connect').then(() => 'up'), once(probe, 'error').then(() => 'down')]).catch(() => 'down');
    probe.destroy();
    if (outcome === 'up') return { server, port };
    if (tries === 1000) throw new Error('redis-server does not listen');
    await sleep(10);
  }
}

async function run(concurrency) {
  const { server, port } = await redisServer();
  const connection = { host: HOST, port };
  try {
    const queue = new Queue('compare', { connection, defaultJobOptions: { removeOnComplete: true } });
    const [warm, count] = counts(concurrency === 1 ? 8_000 : 16_000);
    for (const jobs of [warm, count]) {
      for (let added = 0; added < jobs; added += BULK) {
        const size = Math.min(BULK, jobs - added);
        await queue.addBulk(Array.from({ length: size }, () => ({ name: 'nothing', data: PAYLOAD })));
      }
      const worker = new Worker('compare', async () => {}, { connection, concurrency, autorun: false });
      await worker.waitUntilReady();
      let left = jobs;
      const allDone = new Promise((resolve) => {
        worker.on('completed', () => {
          left -= 1;
          if (left === 0) resolve();
        });
      });
      const startedAt = process.hrtime.bigint();
      worker.run();
      await allDone;
      if (jobs === count) print(count, startedAt);
      await worker.close();
    }
    await queue.close();
  } finally {
    server.kill('SIGKILL');
  }
}

await run(Number(process.argv[2]));
