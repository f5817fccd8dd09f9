import assert from 'node:assert/strict'
import test from 'node:test'
import { Worker as Thread } from 'node:worker_threads'
import { connect, FlowMeshError, open, Reject, Snooze, Worker } from 'flowmesh'
import { client, directory, ended, host, message, program, until, withFullDisk } from './support.mjs'

const QUICK = { durability: 'os', backoff: 0, retention: { done: { ageMs: 3_600_000, count: 10_000 } } }

const places = {
  host: async t => Array(2).fill(await host(t)),
  client: async t => {
    const mesh = await host(t)
    return [mesh, await client(t, mesh)]
  },
}

function everywhere(name, run) {
  for (const [place, make] of Object.entries(places)) {
    test(`${place}: ${name}`, async t => {
      const [host, mesh] = await make(t)
      const queue = await mesh.declareQueue('q', QUICK)
      const start = (handler, options) => {
        const worker = mesh.process(queue, handler, options)
        t.after(() => worker.close())
        return worker
      }
      await run({ queue, start, mesh, host, t })
    })
  }
}

/** A promise and how to end it. */
function held() {
  let letGo
  const free = new Promise(resolve => (letGo = resolve))
  return [free, letGo]
}

everywhere('each job is worked on once and acked with what the handler returns', async ({ queue, start }) => {
  const receipts = await Promise.all(Array.from({ length: 2500 }, (_, at) => queue.enqueue({ at })))
  const seen = []
  const worker = start(async job => {
    seen.push(job.value.at)
    return job.value.at % 2 === 0 ? { doubled: job.value.at * 2 } : undefined
  }, { concurrency: 100 })
  assert.ok(worker instanceof Worker)
  await until(() => worker.stats().done === 2500)
  assert.deepEqual(seen, Array.from({ length: 2500 }, (_, at) => at))
  assert.equal((await queue.result(receipts[10].id)).text, '{"doubled":20}')
  assert.equal(await queue.result(receipts[11].id), undefined)
  assert.deepEqual(worker.stats(), { running: 0, done: 2500, failed: 0, rejected: 0, released: 0, lost: 0 })
  await queue.enqueue('later')
  await until(() => worker.stats().done === 2501)
  assert.equal(await worker.stop(), true)
  assert.equal(worker.isClosed, true)
  assert.equal(await worker.closed, undefined)
  assert.equal((await queue.stats()).totals.done, 2501)
})

everywhere('no more run at once than were asked for, and others get their turn', async ({ queue, start }) => {
  let running = 0
  let most = 0
  let turns = 0
  const timer = setInterval(() => turns++, 1)
  const worker = start(async job => {
    most = Math.max(most, ++running)
    if (job.text.endsWith('7')) await new Promise(resolve => setTimeout(resolve, 1))
    else await new Promise(resolve => setImmediate(resolve))
    running--
  }, { concurrency: 7 })
  await Promise.all(Array.from({ length: 1000 }, (_, at) => queue.enqueue(String(at))))
  await until(() => worker.stats().done === 1000)
  clearInterval(timer)
  assert.equal(most, 7)
  assert.ok(turns > 3)
})

test('timers have their turn however many jobs there are', async t => {
  const mesh = await host(t)
  const queue = await mesh.declareQueue('q', QUICK)
  let done = 0
  let stopped = false
  // Each job brings the next one: without an end.
  const worker = mesh.process(queue, async () => {
    done++
    if (!stopped) await queue.enqueue('next')
  })
  await queue.enqueue('first')
  await new Promise(resolve => setTimeout(resolve, 20))
  stopped = true
  assert.ok(done > 10)
  await worker.stop()
})

everywhere('a handler that throws or rejects fails the attempt with its stack', async ({ queue, start }) => {
  const failed = []
  const errors = []
  class SmtpError extends Error {
    name = 'SmtpError'
  }
  const failures = {
    throws: () => { throw new SmtpError('greylisted') },
    rejects: async () => { throw new SmtpError('greylisted') },
    string: () => { throw 'no' },
    strange: () => { throw Object.create(null) },
    unencodable: () => 5n,
    circular: async () => { const a = {}; a.a = a; return a },
    once: job => { if (job.attempt === 1) throw new Error('once') },
  }
  const worker = start(job => failures[job.text](job), {
    onFailed: (job, error) => {
      failed.push(job.text)
      if (job.text === 'string') throw new Error('of onFailed')
      return error
    },
    onError: (error, job) => errors.push([error.message, job.text]),
  })
  const receipts = {}
  for (const name of Object.keys(failures)) receipts[name] = (await queue.enqueue(name, { maxAttempts: name === 'once' ? 2 : 1 })).id
  await until(async () => (await queue.stats()).jobs.done === 1 && (await queue.stats()).jobs.dead === 6)
  const found = Object.fromEntries(await Promise.all(Object.entries(receipts).map(async ([name, id]) => [name, (await queue.peek(id)).failures.at(-1)])))
  for (const name of ['throws', 'rejects']) {
    assert.equal(found[name].message, 'SmtpError: greylisted')
    assert.match(found[name].detail, /at .*processing\.test\.mjs/)
  }
  assert.equal(found.string.message, 'no')
  assert.match(found.unencodable.message, /FlowMeshError: job\.ack: .*5n/)
  assert.match(found.circular.message, /FlowMeshError: job\.ack/)
  assert.equal(found.once.message, 'Error: once')
  assert.deepEqual(worker.stats(), { running: 0, done: 1, failed: 7, rejected: 0, released: 0, lost: 0 })
  assert.deepEqual(failed, Object.keys(failures))
  assert.deepEqual(errors, [['of onFailed', 'string']])
})

everywhere('a handler may reject a job, put it off, or settle it itself', async ({ queue, start }) => {
  const handlers = {
    reject: () => { throw new Reject('no such user') },
    snooze: (() => {
      let seen = false
      return async () => {
        if (!seen) {
          seen = true
          throw new Snooze(5)
        }
      }
    })(),
    settle: async job => {
      await job.ack('own')
      return 'ignored'
    },
    nack: async job => {
      if (job.attempt === 1) await job.nack('again')
    },
  }
  const worker = start(job => handlers[job.text](job), { concurrency: 2 })
  const ids = {}
  for (const name of Object.keys(handlers)) ids[name] = (await queue.enqueue(name)).id
  await until(async () => (await queue.stats()).jobs.done === 3 && (await queue.stats()).jobs.dead === 1)
  assert.equal((await queue.peek(ids.reject)).failures[0].message, 'no such user')
  assert.equal((await queue.peek(ids.snooze)).attempt, 1)
  assert.equal((await queue.result(ids.settle)).text, 'own')
  assert.equal((await queue.peek(ids.nack)).attempt, 2)
  const { rejected, released, failed, lost } = worker.stats()
  assert.deepEqual([rejected, released, failed, lost], [1, 1, 0, 0])
})

everywhere('a result that is too large fails the attempt', async ({ queue, start }) => {
  await queue.configure({ ...QUICK, payloadBytesMax: 10, maxAttempts: 1 })
  const worker = start(() => 'x'.repeat(11))
  const { id } = await queue.enqueue('x')
  await until(async () => (await queue.peek(id)).state === 'dead')
  assert.match((await queue.peek(id)).failures[0].message, /payload_bytes|result_bytes/)
  assert.equal(worker.stats().failed, 1)
})

everywhere('a job that is cancelled is given back whatever its handler does', async ({ queue, start, host }) => {
  const there = await host.queue('q')
  const [free, letGo] = held()
  const seen = []
  const worker = start(async job => {
    const { signal } = job
    if (job.text !== 'blind') {
      await new Promise(resolve => signal.addEventListener('abort', resolve, { once: true }))
      seen.push(signal.reason.code)
      if (job.text === 'throws') throw new Error('gave up')
      if (job.text === 'result') return 'a result'
    } else await free
  }, { concurrency: 4 })
  const ids = []
  for (const text of ['returns', 'throws', 'result', 'blind']) ids.push((await queue.enqueue(text)).id)
  await until(() => worker.stats().running === 4)
  for (const id of ids) assert.equal(await there.cancel(id), 'asked')
  await until(() => seen.length === 3)
  letGo()
  await until(async () => (await queue.stats()).jobs.cancelled === 4)
  await until(() => worker.stats().released === 4)
  const { done, failed, lost } = worker.stats()
  assert.deepEqual([done, failed, lost, seen], [0, 0, 0, Array(3).fill('CANCELLED')])
})

everywhere('leases are extended for as long as the handler works', async ({ queue, start }) => {
  await queue.configure({ ...QUICK, leaseMs: 1000 })
  const [free, letGo] = held()
  const worker = start(() => free)
  const { id } = await queue.enqueue('x')
  await until(() => worker.stats().running === 1)
  await new Promise(resolve => setTimeout(resolve, 2500))
  const { state, attempt } = await queue.peek(id)
  assert.deepEqual([state, attempt], ['leased', 1])
  letGo()
  await until(() => worker.stats().done === 1)
  assert.equal((await queue.stats()).totals.leaseExpired, 0)
})

everywhere('stopping waits for handlers, then gives back what is not finished', async ({ queue, start }) => {
  const [free, letGo] = held()
  const jobs = []
  const worker = start(async job => {
    jobs.push(job)
    await free
  }, { concurrency: 2 })
  const ids = []
  for (let at = 0; at < 3; at++) ids.push((await queue.enqueue(String(at))).id)
  await until(() => jobs.length === 2)
  const [first, second] = await Promise.all([worker.stop({ timeoutMs: 10 }), worker.stop()])
  assert.deepEqual([first, second], [false, false])
  assert.equal(jobs[0].signal.aborted, true)
  const stats = await queue.stats()
  assert.deepEqual([stats.jobs.ready, stats.jobs.leased, stats.totals.released, stats.totals.failed], [3, 0, 2, 0])
  assert.equal((await queue.peek(ids[0])).attempt, 0)
  letGo()
  await new Promise(resolve => setImmediate(resolve))
  assert.deepEqual(worker.stats(), { running: 0, done: 0, failed: 0, rejected: 0, released: 2, lost: 0 })

  const [free2, letGo2] = held()
  const patient = start(() => free2, { concurrency: 3 })
  await until(() => patient.stats().running === 3)
  const stopping = patient.stop({ timeoutMs: 10_000 })
  await queue.enqueue('after')
  letGo2()
  assert.equal(await stopping, true)
  assert.equal(patient.stats().done, 3)
  assert.equal((await queue.stats()).jobs.ready, 1)
})

everywhere('a worker of a queue that is not there ends with the reason', async ({ mesh }) => {
  const worker = mesh.process('nowhere', () => {})
  await assert.rejects(worker.ready, { code: 'NOT_FOUND' })
  assert.equal((await worker.closed).code, 'NOT_FOUND')
  assert.equal(await worker.stop(), true)
})

everywhere('a mesh that is closed ends its workers, and their jobs are other workers', async ({ queue, mesh, host, t }) => {
  if (mesh === host) return
  const [free, letGo] = held()
  t.after(letGo)
  let job
  const worker = mesh.process('q', async got => {
    job = got
    await free
  })
  const { id } = await queue.enqueue('x')
  await until(() => job)
  await mesh.close()
  assert.equal(await worker.closed, undefined)
  assert.equal(job.signal.aborted, true)
  const again = await (await host.queue('q')).next({ timeoutMs: 5000 })
  assert.deepEqual([again.id, again.attempt], [id, 2])
})

test('a host that ends is the reason why its workers end', async t => {
  const mesh = await host(t)
  const away = await connect(mesh.directory)
  t.after(() => away.close())
  await mesh.declareQueue('q', QUICK)
  const worker = away.process('q', () => {})
  await worker.ready
  await mesh.close()
  const reason = await worker.closed
  assert.ok(reason instanceof FlowMeshError)
  assert.equal(reason.code, 'DISCONNECTED')
})

test('a worker whose process is killed leaves its jobs to another', async t => {
  const mesh = await host(t)
  const queue = await mesh.declareQueue('q', { ...QUICK, leaseMs: 3_600_000 })
  const doomed = program(t, 'jobs.mjs', mesh.directory)
  const first = message(doomed)
  const ids = await Promise.all(['a', 'b', 'c'].map(text => queue.enqueue(text)))
  await first
  await until(async () => (await queue.stats()).jobs.leased === 2)
  doomed.kill('SIGKILL')
  assert.deepEqual(await ended(doomed), { code: null, signal: 'SIGKILL' })
  const seen = []
  const worker = mesh.process('q', job => void seen.push([job.text, job.attempt]))
  t.after(() => worker.close())
  await until(() => worker.stats().done === 3)
  assert.deepEqual(seen.sort(), [['a', 2], ['b', 2], ['c', 1]])
  assert.match((await queue.peek(ids[0].id)).failures[0].message, /process ended/)
  assert.equal((await queue.stats()).totals.workerGone, 2)
})

everywhere('what a full disk refuses is told again', async ({ queue, start, mesh, host, t }) => {
  const [free, letGo] = held()
  const left = []
  let inside = 0
  const receipts = [await queue.enqueue(Buffer.alloc(8192)), await queue.enqueue('x')]
  const byHand = await queue.next({ timeoutMs: 5000 })
  const worker = start(async job => {
    inside++
    await free
    left.push([job.id, job.attempt])
    return 'kept'
  })
  await until(() => inside === 1)
  const refused = async () => {
    const full = { code: 'STORAGE_FULL', retryable: true }
    await assert.rejects(queue.enqueue('refused'), full)
    await assert.rejects(queue.enqueueMany([{ payload: 'a' }, { payload: 'b' }]), full)
    await assert.rejects(mesh.declareQueue('refused'), full)
    await assert.rejects(byHand.ack('by hand'), full)
    await assert.rejects(byHand.extend(60_000), full)
  }
  await withFullDisk(t, async () => {
    await refused()
    letGo()
    await until(() => left.length === 1)
    // Long enough for the worker to be refused, and again: it does not give up while the job is its own.
    for (let round = 0; round < 300; round++) {
      for (const { id } of receipts) assert.equal((await queue.peek(id)).state, 'leased')
      assert.equal(worker.stats().done, 0)
      await new Promise(resolve => setTimeout(resolve, 20))
    }
    await refused()
  })
  letGo()
  await until(() => worker.stats().done === 1)
  await byHand.ack('by hand')
  await worker.stop()
  assert.deepEqual(worker.stats(), { running: 0, done: 1, failed: 0, rejected: 0, released: 0, lost: 0 })
  assert.deepEqual(left, [[receipts[1].id, 1]])
  const { totals } = await queue.stats()
  assert.deepEqual([totals.enqueued, totals.done, totals.failed, totals.leaseExpired], [2, 2, 0, 0])
  // What is on the disk is what was said to be there.
  await mesh.close()
  await host.close()
  const again = await open(host.directory)
  t.after(() => again.close())
  assert.deepEqual(await again.queues(), ['q'])
  const found = await again.queue('q')
  assert.deepEqual(await Promise.all(receipts.map(async ({ id }) => (await found.result(id)).text)), ['by hand', 'kept'])
  const jobs = (await found.stats()).jobs
  assert.deepEqual([jobs.done, jobs.ready, jobs.leased, jobs.dead], [2, 0, 0, 0])
})

test('a thread that is terminated leaves its jobs to another', async t => {
  const mesh = await host(t)
  const queue = await mesh.declareQueue('q', { ...QUICK, leaseMs: 3_600_000 })
  const doomed = new Thread(new URL('programs/jobs-thread.mjs', import.meta.url), { workerData: mesh.directory })
  t.after(() => doomed.terminate())
  const begun = []
  doomed.on('message', text => begun.push(text))
  await Promise.all(['a', 'b', 'c'].map(text => queue.enqueue(text)))
  // Leased is not begun: what is on its way to a thread that ends goes back as if it had not been taken.
  await until(() => begun.length === 2)
  await doomed.terminate()
  const worker = mesh.process('q', () => {})
  t.after(() => worker.close())
  await until(() => worker.stats().done === 3)
  assert.equal((await queue.stats()).totals.workerGone, 2)
})

test('a process ends by itself when its workers are stopped', async t => {
  const child = program(t, 'stopped.mjs', directory(t))
  child.disconnect()
  assert.deepEqual(await ended(child), { code: 0, signal: null })
  assert.equal(child.output, 'done 3\n')
})

test('the end of a job waits for the disk, the next job does not', async t => {
  const mesh = await host(t)
  const queue = await mesh.declareQueue('q', { ...QUICK, durability: 'fsync' })
  await queue.enqueueMany(Array.from({ length: 500 }, () => ({ payload: 'x' })))
  const worker = mesh.process(queue, async () => {})
  await until(() => worker.stats().done === 500)
  await worker.stop()
  const stats = await queue.stats()
  assert.deepEqual([stats.totals.done, stats.jobs.leased], [500, 0])
})
