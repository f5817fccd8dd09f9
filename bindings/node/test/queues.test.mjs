import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import { Content, FlowMeshError, inspect, Job, open, Queue, Snooze } from 'flowmesh'
import { client, directory, host, until } from './support.mjs'

const QUICK = { durability: 'os' }
const TEXT = 'text/plain; charset=utf-8'

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

everywhere('payloads and results keep their type', async mesh => {
  const queue = await mesh.declareQueue('q', QUICK)
  const large = Buffer.alloc(300_000, 'xyz')
  const payloads = [Buffer.from([0, 255]), 'text', { a: [1] }, large, new Uint8Array(0), '']
  for (const payload of payloads) await queue.enqueue(payload)
  const jobs = []
  while (jobs.length < payloads.length) jobs.push(...(await queue.reserve({ count: 10 })))
  assert.deepEqual(jobs.map(job => job.contentType), [undefined, TEXT, 'application/json', undefined, undefined, TEXT])
  assert.deepEqual(jobs.map(job => job.value), [Buffer.from([0, 255]), 'text', { a: [1] }, large, Buffer.alloc(0), ''])
  assert.equal(jobs[1].text, 'text')
  await Promise.all(jobs.map((job, at) => job.ack(payloads[at])))
  const results = await Promise.all(jobs.map(job => queue.result(job.id)))
  assert.deepEqual(results.map(result => result.text), payloads.map(payload => (payload === payloads[2] ? '{"a":[1]}' : Buffer.from(payload).toString())))
  assert.deepEqual(results[2].json, { a: [1] })
  const { id } = await queue.enqueue('x', { contentType: 'text/x', headers: { a: '1', b: '' } })
  const content = await queue.content(id)
  assert.deepEqual([content.text, content.contentType, content.headers], ['x', 'text/x', { a: '1', b: '' }])
  const big = await queue.enqueue(large)
  assert.ok(large.equals((await queue.content(big.id)).payload))
})

everywhere('jobs that are enqueued in one turn have their own outcomes, in order', async mesh => {
  const queue = await mesh.declareQueue('q', { ...QUICK, payloadBytesMax: 100, maxLength: 1990 })
  const calls = Array.from({ length: 2000 }, (_, at) => queue.enqueue(at % 700 === 650 ? 'x'.repeat(101) : String(at), at === 5 ? { leaseMs: 1 } : undefined))
  const outcomes = await Promise.allSettled(calls)
  const failed = outcomes.flatMap(({ reason }, at) => (reason === undefined ? [] : [[at, reason.code]]))
  const full = Array.from({ length: 7 }, (_, at) => [1993 + at, 'FULL'])
  assert.deepEqual(failed, [[5, 'INVALID_ARGUMENT'], [650, 'TOO_LARGE'], [1350, 'TOO_LARGE'], ...full].sort(([a], [b]) => a - b))
  assert.match(outcomes[650].reason.message, /payload_bytes=101.*limit=100/)
  const ids = outcomes.filter(({ value }) => value).map(({ value }) => value.id)
  assert.equal(new Set(ids).size, 1990)
  const taken = []
  while (taken.length < 1990) taken.push(...(await queue.reserve({ count: 1000 })))
  assert.deepEqual(taken.map(job => job.id), ids)
  const numbers = taken.map(job => Number(job.text))
  assert.deepEqual(numbers, numbers.toSorted((a, b) => a - b))
  await queue.ackMany(taken.slice(0, 1000))
  assert.equal((await queue.stats()).totals.done, 1000)
})

everywhere('a burst that is larger than the ring neither blocks nor loses', async (mesh, host) => {
  const queue = await mesh.declareQueue('q', QUICK)
  const payload = Buffer.alloc(1000, 'x')
  const receipts = await Promise.all(Array.from({ length: 5000 }, () => queue.enqueue(payload)))
  assert.equal(new Set(receipts.map(({ id }) => id)).size, 5000)
  const many = await queue.enqueueMany(Array.from({ length: 2000 }, () => ({ payload })))
  assert.equal(many.length, 2000)
  assert.equal((await (await host.queue('q')).stats()).jobs.ready, 7000)
})

everywhere('jobs of one call are enqueued all or none', async mesh => {
  const queue = await mesh.declareQueue('q', { ...QUICK, payloadBytesMax: 10 })
  assert.deepEqual(await queue.enqueueMany([]), [])
  await assert.rejects(queue.enqueueMany([{ payload: 'good' }, { payload: 'x'.repeat(11) }]), { code: 'TOO_LARGE' })
  const receipts = await queue.enqueueMany([{ payload: 'a' }, { payload: 'b', priority: 1 }, { payload: 'c', unique: 'k' }, { payload: 'd', unique: 'k' }])
  assert.deepEqual(receipts.map(({ outcome }) => outcome), ['new', 'new', 'new', 'existing'])
  assert.equal(receipts[3].id, receipts[2].id)
  assert.deepEqual((await queue.reserve({ count: 9 })).map(job => job.text), ['b', 'a', 'c'])
})

everywhere('unique keys within one turn meet each other', async mesh => {
  const queue = await mesh.declareQueue('q', QUICK)
  const [first, second, third] = await Promise.all([
    queue.enqueue('a', { unique: 'k' }),
    queue.enqueue('b', { unique: { key: 'k', scope: 'waiting' } }),
    queue.enqueue('c', { unique: { key: 'k', onConflict: 'replace' } }),
  ])
  assert.deepEqual([second.outcome, second.id], ['existing', first.id])
  assert.deepEqual([third.outcome, third.replaced], ['replaced', first.id])
  const job = await queue.next()
  assert.equal(job.text, 'c')
  // What is acked first is acked first.
  const [, again] = await Promise.all([job.ack(), queue.enqueue('d', { unique: 'k' })])
  assert.equal(again.outcome, 'new')
})

everywhere('a job can be given back, put off, failed and rejected', async mesh => {
  const queue = await mesh.declareQueue('q', { ...QUICK, backoff: 0, maxAttempts: 3 })
  const { id } = await queue.enqueue('x')
  await (await queue.next()).release()
  await (await queue.next()).snooze(1)
  const first = await queue.next({ timeoutMs: 5000 })
  assert.equal(first.attempt, 1)
  await first.nack(new TypeError('broken'))
  const second = await queue.next()
  assert.equal(second.attempt, 2)
  await second.nack('words', { detail: 'more', delayMs: 5 })
  const third = await queue.next({ timeoutMs: 5000 })
  await third.reject('never')
  const info = await queue.peek(id)
  assert.deepEqual([info.state, info.attempt], ['dead', 3])
  assert.deepEqual(info.failures.map(({ attempt, message }) => [attempt, message]), [[1, 'TypeError: broken'], [2, 'words'], [3, 'never']])
  assert.ok(info.failures.every(({ at }) => at instanceof Date))
  await queue.redrive([id])
  const again = await queue.next()
  assert.deepEqual([again.redrives, again.attempt], [1, 1])
})

everywhere('what is settled cannot be settled again', async mesh => {
  const queue = await mesh.declareQueue('q', QUICK)
  await queue.enqueue('x')
  const job = await queue.next()
  const both = await Promise.allSettled([job.ack(), job.ack()])
  assert.deepEqual(both.map(({ reason }) => reason?.code), [undefined, 'LEASE_LOST'])
  for (const call of [() => job.ack('x'), () => job.nack('x'), () => job.release(), () => job.extend(), () => job.progress('x')]) {
    await assert.rejects(call(), error => error.code === 'LEASE_LOST' && error.context.job === job.id)
  }
  assert.equal((await queue.stats()).totals.done, 1)
  await queue.enqueue('y')
  await (await queue.next())[Symbol.asyncDispose]()
  assert.equal((await queue.stats()).jobs.ready, 1)
})

everywhere('a job that is done brings the next', async mesh => {
  const queue = await mesh.declareQueue('q', QUICK)
  const ids = (await queue.enqueueMany(['a', 'b', 'c'].map(payload => ({ payload })))).map(({ id }) => id)
  const first = await queue.next()
  const second = await first.ackAndReserve({ a: 1 }, { leaseMs: 60_000 })
  assert.ok(second instanceof Job && first.isSettled)
  assert.deepEqual([second.id, second.text, second.leaseMs, second.queue], [ids[1], 'b', 60_000, queue])
  assert.deepEqual((await queue.result(first.id)).json, { a: 1 })
  // Whoever is told of an error is given no job.
  await assert.rejects(first.ackAndReserve(), error => error.code === 'LEASE_LOST' && error.context.job === first.id)
  for (const leaseMs of [0, 999, 43_200_001]) await assert.rejects(second.ackAndReserve('x', { leaseMs }), { code: 'INVALID_ARGUMENT' })
  assert.equal(second.isSettled, false)
  const { jobs } = await queue.stats()
  assert.deepEqual([jobs.leased, jobs.ready, jobs.done], [1, 1, 1])
  const both = await Promise.allSettled([second.ackAndReserve(), second.ackAndReserve()])
  assert.deepEqual(both.map(({ reason }) => reason?.code), [undefined, 'LEASE_LOST'])
  const third = both[0].value
  assert.deepEqual([third.id, third.attempt, third.leaseMs], [ids[2], 1, 30_000])
  assert.equal(await third.ackAndReserve(), undefined)
  assert.equal((await queue.stats()).totals.done, 3)
  // What is waited for the disk comes, too.
  const safe = queue.durable('fsync')
  await safe.enqueueMany([{ payload: 'd' }, { payload: Buffer.alloc(300_000, 'e') }])
  const large = await (await safe.next()).ackAndReserve()
  assert.equal(large.payload.length, 300_000)
  assert.equal(await large.ack(), 'fsync')
})

everywhere('who lost his job gets no other with the error', async mesh => {
  const queue = await mesh.declareQueue('q', { ...QUICK, leaseMs: 1000, backoff: 60_000 })
  await queue.enqueue('lost')
  const job = await queue.next()
  await until(async () => (await queue.stats()).totals.leaseExpired === 1)
  const other = await queue.enqueue('other')
  await assert.rejects(job.ackAndReserve(), { code: 'LEASE_LOST' })
  assert.equal(job.isSettled, true)
  const { state, attempt } = await queue.peek(other.id)
  assert.deepEqual([state, attempt], ['ready', 0])
})

everywhere('a job that came after another is not kept alive by itself', async mesh => {
  const queue = await mesh.declareQueue('q', { ...QUICK, leaseMs: 1000 })
  await queue.enqueueMany([{ payload: 'a' }, { payload: 'b' }])
  const next = await (await queue.next()).ackAndReserve()
  await until(() => next.remainingMs === 0)
  await until(async () => (await queue.stats()).totals.leaseExpired === 1)
})

everywhere('a result that is too large leaves the job leased', async mesh => {
  const queue = await mesh.declareQueue('q', { ...QUICK, payloadBytesMax: 10 })
  await queue.enqueue('x')
  const job = await queue.next()
  await assert.rejects(job.ack('x'.repeat(11)), { code: 'TOO_LARGE' })
  await assert.rejects(job.ackAndReserve('x'.repeat(11)), { code: 'TOO_LARGE' })
  assert.equal(job.isSettled, false)
  assert.equal(await job.ack('fits'), 'os')
})

everywhere('a lease is extended, and lost when it is over', async mesh => {
  const queue = await mesh.declareQueue('q', { ...QUICK, leaseMs: 1000, backoff: 0 })
  await queue.enqueue('x')
  const job = await queue.next({ leaseMs: 2000 })
  assert.equal(job.leaseMs, 2000)
  const left = await job.extend(60_000)
  assert.ok(left > 50_000 && left <= 60_000 && job.remainingMs > 50_000)
  await job.ack()
  await queue.enqueue('y')
  const slow = await queue.next()
  await until(() => slow.remainingMs === 0)
  const other = await queue.next({ timeoutMs: 5000 })
  assert.equal(other.attempt, 2)
  await assert.rejects(slow.ack(), { code: 'LEASE_LOST' })
  await other.ack()
})

everywhere('cancelling reaches who has the job', async (mesh, host) => {
  const queue = await mesh.declareQueue('q', QUICK)
  const there = await host.queue('q')
  const { id } = await queue.enqueue('x')
  const job = await queue.next()
  const { signal } = job
  assert.equal(signal.aborted, false)
  assert.equal(await there.cancel(id, 'not needed'), 'asked')
  await until(() => signal.aborted)
  assert.equal(signal.reason.code, 'CANCELLED')
  assert.equal(job.isCancelled, true)
  await job.release()
  assert.equal((await there.peek(id)).state, 'cancelled')
  assert.equal(await queue.cancel(id), 'finished')
  const waiting = await queue.enqueue('y')
  assert.equal(await queue.cancel(waiting.id, 'not needed'), 'now')
  assert.equal((await there.peek(waiting.id)).failures[0].message, 'not needed')
})

everywhere('a wait for jobs ends in time, or when it is given up, and loses nothing', async mesh => {
  const queue = await mesh.declareQueue('q', QUICK)
  assert.deepEqual(await queue.reserve({ timeoutMs: 0 }), [])
  assert.equal(await queue.next({ timeoutMs: 10 }), undefined)
  const controller = new AbortController()
  const waiting = queue.next({ signal: controller.signal })
  const reason = new Error('changed my mind')
  controller.abort(reason)
  await assert.rejects(waiting, error => error === reason)
  await assert.rejects(queue.next({ signal: controller.signal }), error => error === reason)
  const next = queue.next()
  await queue.enqueue('x')
  assert.equal((await next).text, 'x')
})

everywhere('durability is told, and can be asked for', async mesh => {
  const queue = await mesh.declareQueue('q', QUICK)
  const [os, fsync, interval] = await Promise.all([
    queue.enqueue('a'),
    queue.durable('fsync').enqueue('b'),
    queue.enqueue('c', { durability: { intervalMs: 5 } }),
  ])
  assert.deepEqual([os.durability, fsync.durability], ['os', 'fsync'])
  assert.ok(interval.durability === 'fsync' || interval.durability.intervalMs === 5)
  const jobs = await queue.durable('fsync').reserve({ count: 3 })
  assert.deepEqual(await Promise.all(jobs.map(job => job.ack())), ['fsync', 'fsync', 'fsync'])
  await queue.enqueueMany([{ payload: 'd' }, { payload: 'e' }], { durability: 'fsync' })
  const [d, e] = await queue.reserve({ count: 2 })
  assert.deepEqual([await d.ack(undefined, { durability: 'fsync' }), await e.nack('x', { durability: 'fsync' })], ['fsync', 'fsync'])
})

everywhere('jobs are listed, in parts and one after the other', async mesh => {
  const queue = await mesh.declareQueue('q', QUICK)
  const ids = (await Promise.all(Array.from({ length: 250 }, (_, at) => queue.enqueue(String(at))))).map(({ id }) => id)
  const part = await queue.list('ready', { limit: 10 })
  assert.deepEqual(part.jobs.map(({ id }) => id), ids.slice(0, 10))
  const rest = await queue.list('ready', { limit: 1000, cursor: part.next })
  assert.deepEqual([rest.jobs.length, rest.next], [240, undefined])
  const seen = []
  for await (const info of queue.jobs('ready')) seen.push(info.id)
  assert.deepEqual(seen, ids)
  assert.deepEqual([await queue.purge('ready'), (await queue.stats()).jobs.ready], [250, 0])
  await assert.rejects(queue.peek(ids[0]), { code: 'NOT_FOUND' })
})

everywhere('schedules are kept with what their jobs want', async mesh => {
  const queue = await mesh.declareQueue('q', QUICK)
  await queue.schedule('report', '30 6 * * mon-fri', { kind: 'daily' }, {
    zone: 'Europe/Berlin', misfire: 'run-all', overlap: 'skip', jitterMs: 5000, options: { priority: 3, headers: { a: 'b' }, unique: 'k' },
  })
  await queue.schedule('plain', '@hourly')
  const [plain, report] = (await queue.schedules()).sort((a, b) => a.name.localeCompare(b.name))
  const { payload, next, ...rest } = report
  assert.deepEqual(JSON.parse(payload.toString()), { kind: 'daily' })
  assert.ok(next > new Date())
  assert.deepEqual(rest, {
    name: 'report', cron: '30 6 * * mon-fri', zone: 'Europe/Berlin', misfire: 'run-all', overlap: 'skip', jitterMs: 5000,
    options: { priority: 3, headers: { a: 'b' }, contentType: 'application/json', unique: { key: 'k', scope: 'active', onConflict: 'return-existing' } },
  })
  assert.equal(plain.payload.length, 0)
  await assert.rejects(queue.schedule('bad', '61 * * * *'), error => error.code === 'INVALID_ARGUMENT' && /minute: 0 to 59/.test(error.message))
  await queue.unschedule('plain')
  await assert.rejects(queue.unschedule('plain'), { code: 'NOT_FOUND' })
})

everywhere('settings come back as they were given', async mesh => {
  const config = {
    leaseMs: 60_000, maxAttempts: 7, backoff: [1, 2, 3], deadlineMs: 70_000, ttlMs: 80_000, maxLength: 9, payloadBytesMax: 1000,
    concurrency: 10, rate: { count: 100, perMs: 1000, burst: 5 }, groupConcurrency: 1, groupRate: { count: 1, perMs: 1, burst: 1 },
    groupWeights: { a: 2 }, agingMs: 90_000, retention: { done: { ageMs: 1, count: 2 }, dead: { ageMs: 3, count: 4 }, cancelled: { ageMs: 5, count: 6 }, expired: { ageMs: 7, count: 8 } },
    deadLetterTo: 'dead', cancelGraceMs: 1000, uncountedOnCrash: true, durability: { intervalMs: 50 },
  }
  await mesh.declareQueue('dead')
  const queue = await mesh.declareQueue('q', config)
  assert.deepEqual(await queue.config(), config)
  assert.equal(await mesh.declareQueue('q', config), queue)
  await assert.rejects(mesh.declareQueue('q', { ...config, maxAttempts: 8 }), error => error.code === 'CONFLICT' && /max_attempts.*7.*8/.test(error.message))
  await queue.configure({ ...config, backoff: { initialMs: 5, factor: 1.5, maxMs: 50, jitter: false }, concurrency: 5 })
  const found = await queue.config()
  assert.deepEqual([found.backoff, found.concurrency], [{ initialMs: 5, factor: 1.5, maxMs: 50, jitter: false }, 5])
  await queue.pause()
  assert.equal((await queue.stats()).paused, true)
  assert.equal(await queue.drain(), true)
  await assert.rejects(queue.enqueue('x'), { code: 'DRAINING' })
  await queue.resume()
})

test('bad arguments are refused with value and rule', async t => {
  const mesh = await host(t)
  const queue = await mesh.declareQueue('q', QUICK)
  await queue.enqueue('x')
  const job = await queue.next()
  const handler = () => {}
  const bad = [
    [() => mesh.declareQueue(5), /name=5/],
    [() => mesh.declareQueue('a b'), /a b/],
    [() => mesh.declareQueue(''), /name/],
    [() => mesh.declareQueue('n'.repeat(256)), /255/],
    [() => mesh.declareQueue('r', { lease: 5 }), /option="lease".*leaseMs/],
    [() => mesh.declareQueue('r', { leaseMs: 0 }), /lease=0.*1s to 43200s/],
    [() => mesh.declareQueue('r', { leaseMs: 43_200_001 }), /lease=43200.001s/],
    [() => mesh.declareQueue('r', { leaseMs: '5' }), /leaseMs="5"/],
    [() => mesh.declareQueue('r', { leaseMs: NaN }), /leaseMs=NaN/],
    [() => mesh.declareQueue('r', { maxAttempts: 1.5 }), /maxAttempts=1.5/],
    [() => mesh.declareQueue('r', { maxAttempts: 1001 }), /max_attempts=1001.*1 to 1000/],
    [() => mesh.declareQueue('r', { backoff: -1 }), /backoff=-1/],
    [() => mesh.declareQueue('r', { backoff: [1, 'x'] }), /backoff\[1\]="x"/],
    [() => mesh.declareQueue('r', { backoff: { initial: 1 } }), /option="initial"/],
    [() => mesh.declareQueue('r', { backoff: { factor: 0.5 } }), /backoff.factor=0.5/],
    [() => mesh.declareQueue('r', { rate: { count: 1 } }), /rate.perMs=undefined/],
    [() => mesh.declareQueue('r', { groupWeights: { a: 'x' } }), /groupWeights.a="x"/],
    [() => mesh.declareQueue('r', { retention: { done: { age: 1 } } }), /option="age"/],
    [() => mesh.declareQueue('r', { durability: 'disk' }), /durability="disk"/],
    [() => mesh.declareQueue('r', { durability: { intervalMs: 0 } }), /intervalMs=0/],
    [() => mesh.declareQueue('r', { uncountedOnCrash: 1 }), /uncountedOnCrash=1/],
    [() => mesh.queue(Symbol('x')), /name=a symbol/],
    [() => queue.enqueue(5), /payload=5/],
    [() => queue.enqueue('x', { priority: 256 }), /priority=256.*0 to 255/],
    [() => queue.enqueue('x', { priorty: 1 }), /option="priorty"/],
    [() => queue.enqueue('x', { delayMs: -1 }), /delayMs=-1/],
    [() => queue.enqueue('x', { delayMs: 1e14 }), /delay=/],
    [() => queue.enqueue('x', { leaseMs: 0 }), /lease=0.*1s to 43200s/],
    [() => queue.enqueue('x', { leaseMs: 43_200_001 }), /lease=43200.001s/],
    [() => queue.enqueue('x', { delayMs: 1, runAt: new Date() }), /run_at/],
    [() => queue.enqueue('x', { runAt: new Date(NaN) }), /runAt="Invalid Date"/],
    [() => queue.enqueue('x', { id: 'not-an-id' }), /not-an-id/],
    [() => queue.enqueue('x', { unique: { key: 'k', scope: 'ever' } }), /unique.scope="ever"/],
    [() => queue.enqueue('x', { unique: { key: 'k', onConflict: 'return_existing' } }), /unique.onConflict/],
    [() => queue.enqueue('x', { unique: '' }), /unique.key/],
    [() => queue.enqueue('x', { group: 5 }), /group=5/],
    [() => queue.enqueue('x', { headers: [] }), /headers=an array/],
    [() => queue.enqueue('x', { durability: 5 }), /durability=5/],
    [() => queue.enqueueMany('x'), /jobs="x"/],
    [() => queue.enqueueMany([{ payload: 'x' }, null]), /options=null/],
    [() => queue.enqueueMany([{ payload: 'x', key: 1 }]), /option="key"/],
    [() => queue.reserve({ count: 1.5 }), /count=1.5/],
    [() => queue.reserve({ leaseMs: 0 }), /lease=0/],
    [() => queue.reserve({ leaseMs: 43_200_001 }), /lease=43200.001s/],
    [() => queue.reserve({ timeout: 5 }), /option="timeout"/],
    [() => queue.next({ count: 2 }), /option="count"/],
    [() => queue.reserve({ signal: {} }), /signal/],
    [() => queue.list('asleep'), /asleep.*scheduled, ready/],
    [() => queue.list('ready', { cursor: 'nowhere' }), /cursor/],
    [() => queue.peek('x'), /id="x"/],
    [() => queue.redrive('x'), /ids="x"/],
    [() => queue.redriveAt(1, { count: 0, perMs: 1 }), /rate=0 per 1ms/],
    [() => queue.ackMany([5]), /jobs=/],
    [() => queue.schedule('a', 5), /cron=5/],
    [() => queue.schedule('a', '@daily', '', { jitter: 5 }), /option="jitter"/],
    [() => queue.schedule('a', '@daily', '', { options: { delayMs: 5 } }), /option="delayMs"/],
    [() => queue.durable('memory'), /durability="memory"/],
    [() => job.nack('x', { delay: 5 }), /option="delay"/],
    [() => job.nack('x', { delayMs: -1 }), /delayMs=-1/],
    [() => job.nack('x', { delayMs: 1e14 }), /delay=/],
    [() => job.snooze(-5), /delayMs=-5/],
    [() => job.snooze(1e14), /delay=/],
    [() => job.extend(0), /lease=0/],
    [() => job.extend(43_200_001), /lease=43200.001s/],
    [() => job.ack(5), /payload=5/],
    [() => job.ackAndReserve(5), /payload=5/],
    [() => job.ackAndReserve('x', { lease: 5 }), /option="lease"/],
    [() => job.ackAndReserve('x', { leaseMs: 'x' }), /leaseMs="x"/],
    [() => job.ackAndReserve('x', { leaseMs: 999 }), /lease=999ms/],
    [() => mesh.process(5, handler), /queue=5/],
    [() => mesh.process('q'), /handler=undefined/],
    [() => mesh.process('q', handler, { concurrency: 0 }), /concurrency=0.*1 to 1024/],
    [() => mesh.process('q', handler, { concurency: 2 }), /option="concurency"/],
    [() => mesh.process('q', handler, { leaseMs: 999 }), /lease=999ms/],
    [() => mesh.process('q', handler, { leaseMs: 43_200_001 }), /lease=43200.001s/],
    [() => mesh.process('q', handler, { onError: 5 }), /onError=5/],
    [() => new Snooze(-1), /delayMs=-1/],
    [() => inspect(5), /directory=5/],
  ]
  for (const [call, message] of bad) {
    await assert.rejects(async () => call(), error => {
      assert.ok(error instanceof FlowMeshError, `${call}: ${error}`)
      assert.equal(error.code, 'INVALID_ARGUMENT', String(call))
      assert.match(error.message, message, String(call))
      return true
    })
  }
  await assert.rejects(open(directory(t), { repair: 'yes' }), { code: 'INVALID_ARGUMENT' })
  await assert.rejects(queue.peek('01890a5d-ac96-774b-bcce-b302099a8057'), { code: 'NOT_FOUND' })
  const large = [
    [() => queue.enqueue('x', { group: 'x'.repeat(1025) }), /1025.*1024/],
    [() => queue.enqueue('x', { unique: 'x'.repeat(1025) }), /1025.*1024/],
    [() => queue.enqueue('x', { contentType: 'x'.repeat(256) }), /256.*255/],
    [() => queue.enqueue('x', { headers: { a: 'x'.repeat(65_536) } }), /65537.*65536/],
    [() => queue.enqueue('x', { headers: Object.fromEntries(Array.from({ length: 257 }, (_, n) => [`h${n}`, ''])) }), /257.*256/],
    [() => queue.enqueue(Buffer.alloc(8_388_609)), /8388609.*8388608/],
    [() => queue.enqueueMany([{ payload: 'x' }, { payload: Buffer.alloc(8_388_609) }]), /8388609.*8388608/],
    [() => queue.reserve({ count: 1001 }), /1001.*1000/],
    [() => job.ack(Buffer.alloc(8_388_609)), /8388609.*8388608/],
    [() => job.progress('x'.repeat(4097)), /4097.*4096/],
  ]
  for (const [call, message] of large) {
    await assert.rejects(async () => call(), error => {
      assert.equal(error.code, 'TOO_LARGE', `${call}: ${error}`)
      assert.match(error.message, message, String(call))
      return true
    })
  }
  assert.deepEqual(await mesh.queues(), ['q'], 'what is refused makes no queue')
  assert.equal(await job.ack(), 'os', 'what is refused changes nothing')
})

everywhere('a mesh that is closed ends what waits', async (mesh, host) => {
  const queue = await mesh.declareQueue('q', QUICK)
  const waiting = queue.next()
  const enqueued = queue.enqueue('x')
  await enqueued
  const job = await waiting
  const again = queue.next()
  const last = queue.enqueue('last', { delayMs: 1000 })
  const closing = mesh.close()
  await assert.rejects(again, { code: 'CLOSED' })
  // What was asked for before is done; a client may not hear of it any more.
  assert.equal(await last.then(({ outcome }) => outcome, error => error.code === 'CLOSED' && mesh !== host && 'new'), 'new')
  await closing
  assert.equal(job.isCancelled, true)
  await assert.rejects(job.ack(), { code: 'CLOSED' })
  await assert.rejects(queue.enqueue('x'), { code: 'CLOSED' })
  await assert.rejects(queue.stats(), { code: 'CLOSED' })
  await assert.rejects(mesh.queue('q'), { code: 'CLOSED' })
  assert.throws(() => mesh.process('q', () => {}), { code: 'CLOSED' })
})

test('jobs outlive the host', async t => {
  const dir = directory(t)
  const one = await open(dir)
  const queue = await one.declareQueue('q')
  const { id } = await queue.enqueue({ kept: true })
  await one.close()
  const { damages, entries, segments } = await inspect(dir)
  assert.deepEqual(damages, [])
  assert.ok(entries >= 2 && segments.length >= 1)
  const two = await open(dir)
  t.after(() => two.close())
  const job = await (await two.queue('q')).next()
  assert.deepEqual([job.id, job.value], [id, { kept: true }])
})

test('damage is told with its place, and repaired when asked for', async t => {
  const dir = directory(t)
  const mesh = await open(dir)
  const queue = await mesh.declareQueue('q')
  await queue.enqueue('x'.repeat(2000))
  await queue.enqueue('y'.repeat(2000))
  const { id } = await queue.enqueue('whole')
  await mesh.close()
  const file = join(dir, 'ledger', '00000001.fmj')
  const bytes = readFileSync(file)
  bytes[5000] ^= 0xff
  writeFileSync(file, bytes)
  const { damages } = await inspect(dir)
  assert.equal(damages[0].file, '00000001.fmj')
  assert.ok(damages[0].offset > 0 && damages[0].what.length > 0)
  await assert.rejects(open(dir), error => error.code === 'CORRUPT' && error.context.file === '00000001.fmj' && Number(error.context.offset) > 0)
  const repaired = await open(dir, { repair: true })
  t.after(() => repaired.close())
  assert.equal((await (await repaired.queue('q')).peek(id)).state, 'ready')
  await assert.rejects(inspect(join(dir, 'nowhere')), { code: 'NOT_FOUND' })
})
