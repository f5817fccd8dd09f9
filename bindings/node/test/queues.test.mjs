import assert from 'node:assert/strict'
import test from 'node:test'
import { Content, Job, Queue } from 'flowmesh'
import { client, host } from './support.mjs'

/** What uses the queue: the host itself, a client over shared memory, a client over the socket. */
const places = {
  host: async t => Array(2).fill(await host(t)),
  client: async t => {
    const mesh = await host(t)
    return [mesh, await client(t, mesh)]
  },
  'socket client': async t => {
    const mesh = await host(t)
    return [mesh, await client(t, mesh, { sharedMemory: false })]
  },
}

function everywhere(name, run) {
  for (const [place, make] of Object.entries(places)) {
    test(`${place}: ${name}`, async t => {
      const [host, mesh] = await make(t)
      await run(mesh, host, t)
    })
  }
}

everywhere('a job is enqueued, reserved and acked', async mesh => {
  await assert.rejects(mesh.queue('mail'), { code: 'NOT_FOUND' })
  assert.deepEqual(await mesh.queues(), [])
  const mail = await mesh.declareQueue('mail')
  assert.ok(mail instanceof Queue)
  assert.equal(mail.name, 'mail')
  assert.deepEqual(await mesh.queues(), ['mail'])
  const receipt = await mail.enqueue({ to: 'ann' }, { headers: { a: 'b' }, priority: 3, group: 'g' })
  assert.equal(receipt.outcome, 'new')
  assert.equal(receipt.durability, 'fsync')
  assert.match(receipt.id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  const job = await mail.next()
  assert.ok(job instanceof Job && job instanceof Content)
  assert.equal(job.queue, mail)
  const { id, attempt, maxAttempts, priority, redrives, group, contentType, headers, leaseMs } = job
  assert.deepEqual(
    { id, attempt, maxAttempts, priority, redrives, group, contentType, headers, leaseMs },
    { id: receipt.id, attempt: 1, maxAttempts: 5, priority: 3, redrives: 0, group: 'g', contentType: 'application/json', headers: { a: 'b' }, leaseMs: 30_000 },
  )
  assert.deepEqual(job.value, { to: 'ann' })
  assert.ok(job.remainingMs > 0 && job.remainingMs <= 30_000)
  assert.deepEqual([job.isSettled, job.isCancelled], [false, false])
  assert.equal(await job.ack('done'), 'fsync')
  assert.deepEqual([job.isSettled, job.remainingMs], [true, 0])
  assert.equal((await mail.result(id)).text, 'done')
  const stats = await mail.stats()
  assert.deepEqual([stats.jobs.done, stats.totals.enqueued, stats.totals.done], [1, 1, 1])
})
