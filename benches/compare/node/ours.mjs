// FlowMesh's side of the Node lines: the same loops, payloads and figures as in `peers.mjs`, default settings.
//
// This process is the host, the one it starts is a client.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { connect, open } from '../../../bindings/node/dist/index.mjs';
import { BURST, CALLS, EVENTS, check, payload, seedOf } from './payload.mjs';

const SUBJECT = 'compare.event';
const RECEIVED = 'compare.received';
const SERVICE = 'compare.echo';
// How far the subscriber may fall behind before the publisher waits for it.
const CAPACITY = 65_536;
const PATIENCE_MS = 20_000;

async function rpc(mesh, runClient) {
  const service = mesh.serve(SERVICE, (request) => {
    const seed = seedOf(request.payload);
    check(request.payload, seed);
    return payload(seed);
  });
  await service.ready;
  await runClient();
  await service.close();
}

async function rpcClient(mesh) {
  const samples = [];
  for (let seed = 0; seed < CALLS / 10 + CALLS; seed += 1) {
    const start = process.hrtime.bigint();
    const answer = await mesh.call(SERVICE, payload(seed));
    check(answer.payload, seed);
    samples.push(Number(process.hrtime.bigint() - start));
  }
  const sorted = samples.slice(CALLS / 10).sort((a, b) => a - b);
  console.log(`figure ${sorted[CALLS / 2]} ${sorted[(CALLS * 99) / 100]}`);
}

async function rate(mesh, runClient) {
  const received = mesh.subscribe(RECEIVED);
  await received.ready;
  const ended = runClient();
  const patience = { timeoutMs: PATIENCE_MS };
  await received.receive(patience);
  let perSecond = 0;
  for (const count of [EVENTS / 10, EVENTS]) {
    const start = process.hrtime.bigint();
    for (let first = 0; first < count; first += BURST) {
      const burst = [];
      for (let seed = first; seed < first + BURST; seed += 1) burst.push(payload(seed));
      await mesh.publishMany(SUBJECT, burst);
    }
    await received.receive(patience);
    perSecond = count / (Number(process.hrtime.bigint() - start) / 1e9);
  }
  await ended;
  console.log(`figure ${perSecond} ${perSecond}`);
}

async function rateClient(mesh) {
  const options = { capacity: CAPACITY, onSlow: 'block', blockTimeoutMs: PATIENCE_MS };
  const events = mesh.subscribe(SUBJECT, options);
  await events.ready;
  mesh.publish(RECEIVED, 'ready');
  for (const count of [EVENTS / 10, EVENTS]) {
    let seed = 0;
    while (seed < count) {
      for (const message of await events.receiveMany(BURST, { timeoutMs: PATIENCE_MS })) {
        check(message.payload, seed);
        seed += 1;
      }
    }
    mesh.publish(RECEIVED, 'received');
  }
}

// Without a directory this is the process to start with, the host.
const [what, connectTo] = process.argv.slice(2);
if (connectTo === undefined) {
  const directory = await mkdtemp(join(tmpdir(), 'flowmesh-compare-'));
  const mesh = await open(directory);
  // Settles when the client has left.
  const runClient = async () => {
    const child = fork(fileURLToPath(import.meta.url), [what, directory]);
    const [code] = await once(child, 'exit');
    if (code !== 0) throw new Error(`the client left with ${code}`);
  };
  await { rpc, rate }[what](mesh, runClient);
  await mesh.close();
  await rm(directory, { recursive: true });
} else {
  const mesh = await connect(connectTo);
  await { rpc: rpcClient, rate: rateClient }[what](mesh);
  await mesh.close();
}
