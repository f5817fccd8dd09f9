// How many jobs a second one Node program enqueues and works on. Prints one line each.
//
//   node scripts/bench-queues.mjs [--jobs=200000] [--durability=os|fsync] [--client] [--payload=128]
//
// --client: through a session with the host, which is in the same process.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { connect, open } from '../dist/index.mjs'

const text = value => ({ type: 'string', default: value })
const options = { jobs: text('200000'), durability: text('os'), client: { type: 'boolean' }, payload: text('128') }
const { values } = parseArgs({ options })
const count = Number(values.jobs)
const few = Math.ceil(count / 10)
const payload = Buffer.alloc(Number(values.payload), 'x')

const dir = mkdtempSync(join(tmpdir(), 'fmbench-'))
const host = await open(dir)
const mesh = values.client ? await connect(dir) : host
try {
  await worked('warm', 10, few, () => {})
  for (const concurrency of [1, 50]) {
    await worked(`worker-${concurrency}`, concurrency, count, (name, rate) => console.log(`${name}: ${rate} jobs/s`))
  }
  const queue = await mesh.declareQueue('one', { durability: values.durability })
  await timed('enqueue, one after the other', few, async () => {
    for (let at = 0; at < few; at++) await queue.enqueue(payload)
  })
  await timed('next and ack, one after the other', few, async () => {
    for (let at = 0; at < few; at++) await (await queue.next()).ack()
  })
  await timed('enqueueMany of 100', count, async () => {
    for (let at = 0; at < count; at += 100) await queue.enqueueMany(Array(100).fill({ payload }))
  })
  await timed('reserve 100 and ackMany', count, async () => {
    for (let at = 0; at < count; at += 100) await queue.ackMany(await queue.reserve({ count: 100 }))
  })
} finally {
  await mesh.close()
  await host.close()
  rmSync(dir, { recursive: true })
}

/** Enqueues `jobs` in bursts of a thousand, then works on them. */
async function worked(name, concurrency, jobs, tell) {
  const queue = await mesh.declareQueue(name, { durability: values.durability })
  let begun = performance.now()
  for (let at = 0; at < jobs; at += 1000) await Promise.all(Array.from({ length: 1000 }, () => queue.enqueue(payload)))
  tell('enqueue, bursts of 1000', rate(jobs, begun))
  begun = performance.now()
  const all = Math.ceil(jobs / 1000) * 1000
  await new Promise(resolve => {
    let seen = 0
    mesh.process(queue, async () => {
      if (++seen === all) resolve()
    }, { concurrency })
  })
  tell(`worker, async no-op, concurrency ${concurrency}`, rate(all, begun))
}

async function timed(name, jobs, run) {
  const begun = performance.now()
  await run()
  console.log(`${name}: ${rate(jobs, begun)} jobs/s`)
}

function rate(jobs, begun) {
  return Math.round((jobs / (performance.now() - begun)) * 1000).toLocaleString('en')
}
