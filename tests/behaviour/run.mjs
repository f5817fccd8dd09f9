// Runs the scenarios of this folder through the npm package `flowmesh`: see README.md.
//
//   node tests/behaviour/run.mjs [FILE…]

import assert from 'node:assert/strict'
import { closeSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { connect, FlowMeshError, inspect, open, Reject, Reply, Snooze } from '../../bindings/node/dist/index.mjs'

const WATCHDOG_MS = 10_000
const here = fileURLToPath(new URL('.', import.meta.url))
const files = process.argv.slice(2)
if (files.length === 0) {
  files.push(...readdirSync(here).filter(name => name.endsWith('.json')).sort().map(name => join(here, name)))
}

class Run {
  dir = mkdtempSync('/tmp/fm')
  meshes = new Map()
  subscriptions = new Map()
  services = new Map()
  calls = new Map()
  queues = new Map()
  /** Jobs that were reserved. */
  jobs = new Map()
  /** Ids of jobs that were enqueued. */
  ids = new Map()
  reservations = new Map()
  cursors = new Map()
  workers = new Map()
  impostors = []
  marked = 0
  /** Some subscriber blocks its publishers, so publishing has to wait. */
  blocks = false

  constructor(scenario, role) {
    this.scenario = scenario
    this.role = role
  }

  async all() {
    this.meshes.set('host', await open(this.dir, this.hostOptions('host')))
    const host = this.meshes.get('host')
    this.meshes.set('me', this.role === 'host' ? host : await connect(this.dir, this.clientOptions('me')))
    for (const [at, template] of this.scenario.steps.entries()) {
      this.at = at + 1
      this.step = template
      for (let i = 0; i < (template.times ?? 1); i++) {
        const text = JSON.stringify(template).replaceAll('{i}', i).replaceAll('{pid}', process.pid)
        this.step = JSON.parse(text)
        await within(WATCHDOG_MS + (this.step.timeout_ms ?? 0), this.perform(this.step))
      }
    }
  }

  async perform(step) {
    const act = this[`do_${step.do}`]
    assert.ok(act, `no such step: ${step.do}`)
    let error
    try {
      await act.call(this, step)
    } catch (thrown) {
      error = thrown
    }
    if (step.error === undefined) {
      if (error !== undefined) throw error
      return
    }
    assert.ok(error, `did not fail with ${step.error.kind}`)
    if (!(error instanceof FlowMeshError)) throw error
    assert.equal(error.code, step.error.kind, error.message)
    for (const text of step.error.contains ?? []) assert.ok(error.message.includes(text), `${error.message}: no ${text}`)
  }

  async end() {
    for (const impostor of this.impostors) impostor.close()
    for (const { letGo } of this.workers.values()) letGo()
    for (const mesh of [...this.meshes.values()].reverse()) await mesh.close()
    rmSync(this.dir, { recursive: true, force: true })
  }

  // ---------- meshes

  clientOptions(name) {
    const { breaker } = this.scenario.mesh ?? {}
    if (typeof breaker !== 'object') return given({ name, breaker })
    const { window_ms, min_calls, failure_ratio, open_for_ms, open_for_max_ms, probes, ...unknown } = breaker
    assert.deepEqual(unknown, {}, 'unknown options of the breaker')
    const options = { windowMs: window_ms, minCalls: min_calls, failureRatio: failure_ratio, openMs: open_for_ms, openMsMax: open_for_max_ms, probes }
    return { name, breaker: given(options) }
  }

  hostOptions(name) {
    const { max_message_bytes, ring_bytes, max_sessions, breaker, ...unknown } = this.scenario.mesh ?? {}
    assert.deepEqual(unknown, {}, 'unknown options of the mesh')
    return given({ ...this.clientOptions(name), maxMessageBytes: max_message_bytes, ringBytes: ring_bytes, maxSessions: max_sessions })
  }

  mesh(step) {
    return named(this.meshes, step.on ?? 'me')
  }

  path(dir) {
    return dir === undefined ? this.dir : join(this.dir, dir)
  }

  async do_open({ as, dir, repair }) {
    this.meshes.set(as, await open(this.path(dir), { ...this.hostOptions(as), ...given({ repair }) }))
  }

  async do_connect({ as, dir, name, shared_memory }) {
    const options = { ...this.clientOptions(name ?? as), sharedMemory: shared_memory ?? true }
    this.meshes.set(as, await connect(this.path(dir), options))
  }

  async do_impostor({ dir, socket }) {
    mkdirSync(this.path(dir))
    const server = createServer(peer => {
      peer.on('error', () => {})
      peer.end('HTTP/1.1 400 Bad Request\r\n\r\n')
    })
    this.impostors.push(server)
    await new Promise(resolve => server.listen(join(this.path(dir), socket), resolve))
  }

  async do_close({ what }) {
    const found = this.meshes.get(what) ?? this.subscriptions.get(what) ?? this.services.get(what) ?? this.workers.get(what)?.worker
    assert.ok(found, `nothing is named ${what}`)
    await found.close()
  }

  do_info(step) {
    const mesh = this.mesh(step)
    const info = {
      role: mesh.role,
      session: mesh.session,
      host_pid: String(mesh.hostPid),
      max_message_bytes: mesh.maxMessageBytes,
      closed: mesh.isClosed,
    }
    for (const [name, wanted] of Object.entries(step.expect)) {
      assert.ok(Object.hasOwn(info, name), `no such field: ${name}`)
      if (!meets(info[name], wanted)) assert.deepEqual(info[name], wanted, name)
    }
  }

  // ---------- events

  do_subscribe(step) {
    const { priority, group, capacity, on_slow, block_ms, retry, ...unknown } = step.options ?? {}
    assert.deepEqual(unknown, {}, 'unknown options')
    const options = given({
      priority,
      group,
      capacity,
      onSlow: on_slow?.replace('_', '-'),
      blockTimeoutMs: block_ms,
      retry: retry && retrying(retry),
    })
    this.blocks ||= on_slow === 'block'
    this.subscriptions.set(step.as, this.mesh(step).subscribe(step.pattern, options))
  }

  async do_publish(step) {
    const { subject, payload, headers, priority, ttl_ms, delay_ms, timeout_ms } = step
    const options = given({ headers, priority, ttlMs: ttl_ms, delayMs: delay_ms })
    const mesh = this.mesh(step)
    if (this.blocks || timeout_ms !== undefined) {
      await mesh.publishWait(subject, bytes(payload), { ...options, ...given({ timeoutMs: timeout_ms }) })
    } else {
      mesh.publish(subject, bytes(payload), options)
    }
  }

  async do_publish_many(step) {
    const { events, priority, headers } = step
    await this.mesh(step).publishMany(events.map(([subject, payload]) => [subject, bytes(payload)]), given({ priority, headers }))
  }

  async do_receive({ from, timeout_ms, expect, after_ms, fail }) {
    const subscription = named(this.subscriptions, from)
    const message = await subscription.receive({ timeoutMs: timeout_ms ?? WATCHDOG_MS })
    this.notBefore(after_ms)
    const { payload, ...rest } = expect ?? {}
    if (payload?.job !== undefined) {
      const { job, attempt, ...unknown } = payload
      assert.deepEqual(unknown, {}, 'unknown fields')
      const event = JSON.parse(message.text)
      assert.deepEqual({ job: event.job, attempt: event.attempt }, { job: this.id(job), attempt })
      check(message, rest)
    } else check(message, expect)
    if (fail !== undefined) await subscription.fail(message, failure(fail))
  }

  async do_gather({ from, payloads, each_at_least }) {
    const subscriptions = from.map(name => named(this.subscriptions, name))
    const got = subscriptions.map(() => [])
    await until(() => {
      subscriptions.forEach((subscription, index) => got[index].push(...subscription.drain().map(event => event.payload)))
      return got.flat().length >= payloads.length
    })
    const sorted = list => list.map(payload => payload.toString('hex')).sort()
    assert.deepEqual(sorted(got.flat()), sorted(payloads.map(bytes)))
    got.forEach((events, index) => assert.ok(events.length >= (each_at_least ?? 0), `${from[index]} got ${events.length}`))
  }

  async do_expect_nothing({ from, for_ms }) {
    const event = await named(this.subscriptions, from).receive({ timeoutMs: for_ms ?? 50 }).catch(error => {
      if (error.code !== 'TIMEOUT') throw error
    })
    if (event !== undefined) assert.fail(`${event.text} came`)
  }

  async do_subscription_stats({ of, expect }) {
    const subscription = named(this.subscriptions, of)
    await meeting(() => subscription.stats(), expect)
  }

  // ---------- rpc

  do_serve(step) {
    const { version, concurrency, queue, rate, burst, ...unknown } = step.options ?? {}
    assert.deepEqual(unknown, {}, 'unknown options')
    const counts = { started: 0, cancelled: 0, closed: new Promise(() => {}) }
    const serve = handler(step.handler, counts)
    const service = this.mesh(step).serve(step.service, serve, given({ version, concurrency, queue, rate, burst }))
    counts.closed = service.closed
    service.counts = counts
    this.services.set(step.as, service)
  }

  async do_handled({ of, started, cancelled }) {
    const { counts } = named(this.services, of)
    await until(() => (started ?? counts.started) === counts.started && (cancelled ?? counts.cancelled) === counts.cancelled)
  }

  async do_call(step) {
    check(await this.start(step), step.expect)
  }

  do_start_call(step) {
    const controller = new AbortController()
    const answer = this.start(step, controller.signal)
    answer.catch(() => {})
    this.calls.set(step.as, { answer, controller })
  }

  start(step, signal) {
    const { service, payload, headers, timeout_ms } = step
    return this.mesh(step).call(service, bytes(payload), given({ headers, timeoutMs: timeout_ms ?? WATCHDOG_MS, signal }))
  }

  async do_finish({ call, expect }) {
    check(await named(this.calls, call).answer, expect)
  }

  do_cancel({ call }) {
    // The reason is what the caller's promise is rejected with.
    named(this.calls, call).controller.abort(new FlowMeshError('CANCELLED', 'mesh.call'))
  }

  async do_services(step) {
    const mesh = this.mesh(step)
    await until(async () => {
      const services = await mesh.services()
      return same(services.map(({ name }) => name).sort(), Object.keys(step.expect).sort()) && services.every(({ name, instances }) => {
        const { instances: count, versions, ...unknown } = step.expect[name]
        assert.deepEqual(unknown, {}, 'unknown fields')
        const found = instances.map(({ version }) => version).sort()
        return instances.length === (count ?? instances.length) && (versions === undefined || same(found, versions))
      })
    })
  }

  async do_stats(step) {
    const mesh = this.mesh(step)
    await meeting(() => mesh.stats(), step.expect)
  }

  // ---------- queues

  queue(step) {
    const queue = named(this.queues, step.queue)
    return step.durability === undefined ? queue : queue.durable(durability(step.durability))
  }

  id(name) {
    return name.length === 36 ? name : named(this.ids, name)
  }

  notBefore(ms) {
    if (ms !== undefined) assert.ok(performance.now() - this.marked >= ms, 'it came too early')
  }

  async do_declare_queue(step) {
    this.queues.set(step.as ?? step.name, await this.mesh(step).declareQueue(step.name, config(step.config)))
  }

  async do_queue(step) {
    this.queues.set(step.as ?? step.name, await this.mesh(step).queue(step.name))
  }

  async do_queues(step) {
    assert.deepEqual(await this.mesh(step).queues(), step.expect)
  }

  async do_configure(step) {
    await this.queue(step).configure(config(step.config))
  }

  async do_config(step) {
    const found = await this.queue(step).config()
    for (const [name, wanted] of Object.entries(config(step.expect))) assert.deepEqual(found[name] ?? null, wanted, name)
  }

  async do_enqueue(step) {
    const { payload, as, reached, outcome = 'new', same_as, do: _, queue: _queue, durability: _durability, times: _times, error: _error, ...options } = step
    const receipt = await this.queue(step).enqueue(bytes(payload), jobOptions(options))
    assert.equal(receipt.outcome, outcome)
    if (same_as !== undefined) assert.equal(outcome === 'replaced' ? receipt.replaced : receipt.id, this.id(same_as))
    reaches(receipt.durability, reached)
    if (as !== undefined) this.ids.set(as, receipt.id)
  }

  async do_enqueue_many(step) {
    const jobs = Array(step.repeat ?? 1).fill(step.jobs).flat()
    const receipts = await this.queue(step).enqueueMany(jobs.map(({ payload, as: _, ...options }) => ({ payload: bytes(payload), ...jobOptions(options) })))
    assert.deepEqual(receipts.map(({ outcome }) => outcome), step.outcomes ?? jobs.map(() => 'new'))
    receipts.forEach(({ durability }) => reaches(durability, step.reached))
    jobs.forEach(({ as }, index) => as !== undefined && this.ids.set(as, receipts[index].id))
  }

  reserving(step) {
    const { as, count, lease_ms, timeout_ms } = step
    const options = { count: count ?? (Array.isArray(as) && step.do === 'reserve' ? as.length : 1), leaseMs: lease_ms, timeoutMs: timeout_ms ?? WATCHDOG_MS }
    return this.queue(step).reserve(given(options))
  }

  reserved(jobs, { as, expect, payloads, after_ms }) {
    this.notBefore(after_ms)
    assert.ok(jobs.length > 0, 'there came no job')
    if (Array.isArray(as)) assert.equal(jobs.length, as.length)
    if (payloads !== undefined) assert.deepEqual(jobs.map(job => job.payload.toString('hex')), payloads.map(payload => bytes(payload).toString('hex')))
    this.checkJob(jobs[0], expect)
    const names = as === undefined ? [] : [as].flat()
    names.forEach((name, index) => this.jobs.set(name, jobs[index]))
  }

  checkJob(job, expect = {}) {
    const { id, max_attempts, redrives, group, lease_ms, attempt, priority, ...rest } = expect
    const wanted = given({ id: id && this.id(id), maxAttempts: max_attempts, redrives, leaseMs: lease_ms, attempt, priority })
    for (const [name, value] of Object.entries(wanted)) assert.equal(job[name], value, name)
    if (group !== undefined) assert.equal(job.group ?? null, group)
    check(job, rest)
  }

  async do_reserve(step) {
    this.reserved(await this.reserving(step), step)
  }

  do_start_reserve(step) {
    const reservation = this.reserving(step)
    reservation.catch(() => {})
    this.reservations.set(step.as, reservation)
  }

  async do_finish_reserve(step) {
    const jobs = await named(this.reservations, step.reserve)
    if (step.none) assert.equal(jobs.length, 0, 'there came a job')
    else this.reserved(jobs, step)
  }

  async do_expect_no_job(step) {
    const jobs = await this.queue(step).reserve({ timeoutMs: step.for_ms ?? 50 })
    if (jobs.length > 0) assert.fail(`${jobs[0].text} came`)
  }

  async do_take(step) {
    const found = []
    for (const _ of step.payloads) {
      const job = await this.queue(step).next({ timeoutMs: WATCHDOG_MS })
      assert.ok(job, 'there came no job')
      found.push(job.payload.toString('hex'))
      await job.ack()
    }
    this.notBefore(step.after_ms)
    const wanted = step.payloads.map(payload => bytes(payload).toString('hex'))
    if (step.any_order) assert.deepEqual(found.sort(), wanted.sort())
    else assert.deepEqual(found, wanted)
  }

  job(step) {
    return named(this.jobs, step.job)
  }

  async do_ack(step) {
    reaches(await this.job(step).ack(step.result === undefined ? undefined : bytes(step.result)), step.reached)
  }

  async do_ack_many(step) {
    const jobs = step.jobs.map(name => named(this.jobs, name))
    const found = await this.queue(step).ackMany(jobs)
    assert.deepEqual(found.map(error => error?.code ?? null), step.errors ?? jobs.map(() => null))
  }

  async do_ack_and_reserve(step) {
    const { result, lease_ms, none } = step
    const next = await this.job(step).ackAndReserve(result === undefined ? undefined : bytes(result), given({ leaseMs: lease_ms }))
    if (none) assert.equal(next, undefined, 'there came a job')
    else this.reserved(next === undefined ? [] : [next], step)
  }

  async do_nack(step) {
    await this.job(step).nack(step.message ?? '', given({ detail: step.detail, delayMs: step.delay_ms }))
  }

  async do_reject(step) {
    await this.job(step).reject(step.message ?? '', given({ detail: step.detail }))
  }

  async do_release(step) {
    await this.job(step).release()
  }

  async do_snooze(step) {
    await this.job(step).snooze(step.delay_ms)
  }

  async do_extend(step) {
    const left = await this.job(step).extend(step.lease_ms)
    assert.ok(left >= (step.at_least_ms ?? 0) && left <= (step.at_most_ms ?? Infinity), `${left} ms`)
  }

  async do_progress(step) {
    await this.job(step).progress(bytes(step.payload))
  }

  async do_job(step) {
    const job = this.job(step)
    const { cancelled, settled, remaining_at_least_ms, remaining_at_most_ms, ...unknown } = step.expect
    assert.deepEqual(unknown, {}, 'unknown fields')
    await until(() => (cancelled ?? job.isCancelled) === job.isCancelled
      && (settled ?? job.isSettled) === job.isSettled
      && job.remainingMs >= (remaining_at_least_ms ?? 0)
      && job.remainingMs <= (remaining_at_most_ms ?? Infinity))
  }

  async do_cancel_job(step) {
    const came = await this.queue(step).cancel(this.id(step.id), step.why)
    if (step.expect !== undefined) assert.equal(came, step.expect)
  }

  async do_redrive(step) {
    await this.queue(step).redrive(step.ids.map(id => this.id(id)))
  }

  async do_redrive_dead(step) {
    const count = await this.queue(step).redriveDead(step.most)
    assert.equal(count, step.expect ?? count)
  }

  async do_redrive_at(step) {
    await this.queue(step).redriveAt(step.count, rate(step.rate))
  }

  async do_purge(step) {
    const count = await this.queue(step).purge(step.state)
    assert.equal(count, step.expect ?? count)
  }

  async do_remove(step) {
    await this.queue(step).remove(this.id(step.id))
  }

  async do_pause(step) {
    await this.queue(step).pause()
  }

  async do_resume(step) {
    await this.queue(step).resume()
  }

  async do_drain(step) {
    const idle = await this.queue(step).drain()
    assert.equal(idle, step.expect ?? idle)
  }

  async do_schedule(step) {
    const { name, cron, zone, misfire, overlap, jitter_ms, payload, do: _, queue: _queue, durability: _durability, times: _times, error: _error, ...options } = step
    const schedule = { zone, misfire: misfire?.replace('_', '-'), overlap, jitterMs: jitter_ms, options: jobOptions(options) }
    await this.queue(step).schedule(name, cron, bytes(payload), given(schedule))
  }

  async do_unschedule(step) {
    await this.queue(step).unschedule(step.name)
  }

  async do_schedules(step) {
    const found = new Map((await this.queue(step).schedules()).map(schedule => [schedule.name, schedule]))
    assert.deepEqual([...found.keys()].sort(), step.expect.map(({ name }) => name).sort())
    for (const { name, payload, misfire, jitter_ms, next_within_ms, ...rest } of step.expect) {
      const schedule = found.get(name)
      const wanted = given({ ...rest, misfire: misfire?.replace('_', '-'), jitterMs: jitter_ms })
      for (const [field, value] of Object.entries(wanted)) assert.equal(schedule[field], value, `${name}: ${field}`)
      if (payload !== undefined) assert.ok(bytes(payload).equals(schedule.payload), `${name}: payload`)
      if (next_within_ms !== undefined) within_ms(schedule.next, next_within_ms)
    }
  }

  async do_list(step) {
    const cursor = step.cursor === undefined ? undefined : named(this.cursors, step.cursor)
    const { jobs, next } = await this.queue(step).list(step.state, given({ cursor, limit: step.limit }))
    if (step.ids !== undefined) assert.deepEqual(jobs.map(({ id }) => id), step.ids.map(id => this.id(id)))
    if (step.count !== undefined) assert.equal(jobs.length, step.count)
    if (step.more !== undefined) assert.equal(next !== undefined, step.more)
    assert.ok(jobs.every(({ state }) => state === step.state))
    if (step.as !== undefined) this.cursors.set(step.as, next)
  }

  async do_peek(step) {
    const { max_attempts, unique_key, payload_bytes, has_result, progress, expires, due_within_ms, failures, ...rest } = step.expect ?? {}
    const wanted = given({ ...rest, maxAttempts: max_attempts, uniqueKey: unique_key, payloadBytes: payload_bytes, hasResult: has_result })
    const id = this.id(step.id)
    let differs
    await until(async () => {
      const info = await this.queue(step).peek(id)
      try {
        for (const [name, value] of Object.entries(wanted)) assert.equal(info[name] ?? null, value, name)
        if (progress !== undefined) assert.deepEqual(info.progress?.toString('hex') ?? null, progress && bytes(progress).toString('hex'), 'progress')
        if (expires !== undefined) assert.equal(info.expires !== undefined, expires, 'expires')
        if (due_within_ms !== undefined) within_ms(info.due, due_within_ms)
        if (failures !== undefined) {
          assert.equal(info.failures.length, failures.length, 'failures')
          failures.forEach((failure, index) => {
            for (const [name, value] of Object.entries(failure)) assert.equal(info.failures[index][name], value, `failure ${index}: ${name}`)
          })
        }
        return true
      } catch (error) {
        differs = error
        return false
      }
    }, () => differs?.message)
  }

  async do_gone(step) {
    const id = this.id(step.id)
    await until(() => this.queue(step).peek(id).then(() => false, error => {
      if (error.code !== 'NOT_FOUND') throw error
      return true
    }))
  }

  async do_content(step) {
    check(await this.queue(step).content(this.id(step.id)), step.expect)
  }

  async do_result(step) {
    const result = await this.queue(step).result(this.id(step.id))
    if (step.expect === null) assert.equal(result, undefined)
    else assert.ok(result && bytes(step.expect).equals(result.payload), `the result is ${result?.text}`)
  }

  async do_queue_stats(step) {
    const queue = this.queue(step)
    // States keep their names in every language.
    const read = async () => {
      const { jobs, ...stats } = await queue.stats()
      return { ...stats, jobs: Object.fromEntries(Object.entries(jobs).map(([state, count]) => [state.replace('retry_wait', 'retryWait'), count])) }
    }
    await meeting(read, step.expect)
  }

  do_work(step) {
    const counts = { started: 0, cancelled: 0 }
    let letGo
    const free = new Promise(resolve => (letGo = resolve))
    const queue = named(this.queues, step.queue)
    const options = given({ concurrency: step.concurrency, leaseMs: step.lease_ms, durability: step.durability && durability(step.durability) })
    const worker = [...this.meshes.values()][0].process(queue, working(step.handler, counts, free), options)
    this.workers.set(step.as, { worker, counts, letGo })
  }

  async do_worked(step) {
    const { worker, counts } = named(this.workers, step.of)
    let found
    await until(() => {
      found = { ...worker.stats(), ...counts }
      return ['started', 'cancelled', 'done', 'failed', 'rejected', 'released', 'lost'].every(name => (step[name] ?? found[name]) === found[name])
    }, () => JSON.stringify(found))
  }

  do_let_go({ of }) {
    named(this.workers, of).letGo()
  }

  async do_stop_work({ of, timeout_ms, expect }) {
    const inTime = await named(this.workers, of).worker.stop({ timeoutMs: timeout_ms ?? WATCHDOG_MS })
    assert.equal(inTime, expect ?? inTime)
  }

  async do_inspect({ dir, expect }) {
    const found = await inspect(this.path(dir))
    for (const [name, wanted] of Object.entries(expect)) {
      assert.ok(Object.hasOwn(found, name), `no such field: ${name}`)
      const value = Array.isArray(found[name]) ? found[name].length : found[name]
      assert.ok(meets(value, wanted), `${name} is ${value}`)
    }
  }

  do_damage({ dir, file, offset }) {
    const opened = openSync(join(this.path(dir), file), 'r+')
    const byte = Buffer.alloc(1)
    readSync(opened, byte, 0, 1, offset)
    byte[0] ^= 0xff
    writeSync(opened, byte, 0, 1, offset)
    closeSync(opened)
  }

  // ---------- time

  do_wait({ ms }) {
    return new Promise(resolve => setTimeout(resolve, ms))
  }

  do_mark() {
    this.marked = performance.now()
  }
}

function handler(what, counts) {
  const cancelled = signal => new Promise(resolve => {
    const abort = () => {
      counts.cancelled++
      resolve()
    }
    if (signal.aborted) abort()
    else signal.addEventListener('abort', abort, { once: true })
  })
  const answer = answering(what, counts, cancelled)
  return (request, context) => {
    counts.started++
    return answer(request, context)
  }
}

function answering(what, counts, cancelled) {
  const echo = request => new Reply(request.payload, { headers: request.headers })
  if (what === 'echo') return echo
  if (what === 'upper') return request => Buffer.from(request.payload.toString('latin1').replace(/[a-z]+/g, found => found.toUpperCase()), 'latin1')
  if (what === 'never') return (_, { signal }) => Promise.race([cancelled(signal), counts.closed]).then(() => '')
  if (what.reply !== undefined) return () => bytes(what.reply)
  if (what.fail !== undefined) return () => { throw failure(what.fail) }
  if (what.echo_after !== undefined) {
    return async (request, { signal }) => {
      let timer
      const late = new Promise(resolve => (timer = setTimeout(resolve, what.echo_after)))
      await Promise.race([late, cancelled(signal)])
      clearTimeout(timer)
      return echo(request)
    }
  }
  throw new Error(`no such handler: ${JSON.stringify(what)}`)
}

/** What `what` makes of a job. */
function working(what, counts, free) {
  const cancelled = job => new Promise(resolve => {
    const abort = () => {
      counts.cancelled++
      resolve(true)
    }
    if (job.signal.aborted) abort()
    else job.signal.addEventListener('abort', abort, { once: true })
  })
  const echo = job => job.payload
  const hold = async job => ((await Promise.race([free, cancelled(job)])) ? undefined : job.payload)
  const act = acting(what, { echo, hold })
  return job => {
    counts.started++
    return act(job)
  }
}

function acting(what, { echo, hold }) {
  if (what === 'echo') return echo
  if (what === 'quiet') return () => {}
  if (what === 'hold') return hold
  if (what === 'settle') {
    return async job => {
      await job.ack(Buffer.from('own'))
      return 'ignored'
    }
  }
  if (what.fail !== undefined) {
    const { times = Infinity } = what.fail
    return job => {
      if (job.attempt <= times) throw failure(what.fail)
      return echo(job)
    }
  }
  if (what.reject !== undefined) return () => { throw new Reject(what.reject) }
  if (what.snooze_ms !== undefined) {
    const seen = new Set()
    return job => {
      if (!seen.has(job.id)) {
        seen.add(job.id)
        throw new Snooze(what.snooze_ms)
      }
      return echo(job)
    }
  }
  if (what.progress !== undefined) {
    return async job => {
      await job.progress(bytes(what.progress))
      return hold(job)
    }
  }
  throw new Error(`no such handler: ${JSON.stringify(what)}`)
}

function durability(value) {
  return typeof value === 'number' ? { intervalMs: value } : value
}

function reaches(found, wanted) {
  if (wanted === undefined) return
  const rank = value => (typeof value === 'object' ? 2 : { memory: 0, os: 1, fsync: 3 }[value])
  assert.ok(rank(found) >= rank(durability(wanted)), `only ${JSON.stringify(found)} was reached`)
}

function config(fields = {}) {
  const {
    lease_ms, max_attempts, backoff: wait, deadline_ms, ttl_ms, max_length, payload_bytes_max, concurrency, rate: often, group_concurrency,
    group_rate, group_weights, aging_ms, retention, dead_letter_to, cancel_grace_ms, uncounted_on_crash, durability: safety, ...unknown
  } = fields
  assert.deepEqual(unknown, {}, 'unknown settings')
  const keep = ([state, { age_ms, count, ...unknown }]) => {
    assert.deepEqual(unknown, {}, 'unknown fields of the retention')
    return [state, given({ ageMs: age_ms, count })]
  }
  return given({
    leaseMs: lease_ms,
    maxAttempts: max_attempts,
    backoff: wait && backoff(wait),
    deadlineMs: deadline_ms,
    ttlMs: ttl_ms,
    maxLength: max_length,
    payloadBytesMax: payload_bytes_max,
    concurrency,
    rate: often && rate(often),
    groupConcurrency: group_concurrency,
    groupRate: group_rate && rate(group_rate),
    groupWeights: group_weights,
    agingMs: aging_ms,
    retention: retention && Object.fromEntries(Object.entries(retention).map(keep)),
    deadLetterTo: dead_letter_to,
    cancelGraceMs: cancel_grace_ms,
    uncountedOnCrash: uncounted_on_crash,
    durability: durability(safety),
  })
}

function backoff({ fixed_ms, list_ms, initial_ms, factor, max_ms, jitter, ...unknown }) {
  assert.deepEqual(unknown, {}, 'unknown fields of the backoff')
  return fixed_ms ?? list_ms ?? given({ initialMs: initial_ms, factor, maxMs: max_ms, jitter })
}

function rate({ count, per_ms, burst, ...unknown }) {
  assert.deepEqual(unknown, {}, 'unknown fields of the rate')
  return given({ count, perMs: per_ms, burst })
}

function jobOptions(fields) {
  const {
    id, priority, delay_ms, run_at_ms, ttl_ms, unique, unique_scope, unique_window_ms, on_conflict, group, headers, content_type,
    max_attempts, backoff: wait, lease_ms, deadline_ms, result_ttl_ms, ...unknown
  } = fields
  assert.deepEqual(unknown, {}, 'unknown options')
  const scope = unique_scope === 'window' ? { windowMs: unique_window_ms } : unique_scope
  return given({
    id,
    priority,
    delayMs: delay_ms,
    runAt: run_at_ms === undefined ? undefined : new Date(Date.now() + run_at_ms),
    ttlMs: ttl_ms,
    unique: unique === undefined ? undefined : given({ key: unique, scope, onConflict: on_conflict?.replace('_', '-') }),
    group,
    headers,
    contentType: content_type,
    maxAttempts: max_attempts,
    backoff: wait && backoff(wait),
    leaseMs: lease_ms,
    deadlineMs: deadline_ms,
    resultTtlMs: result_ttl_ms,
  })
}

function within_ms(date, ms) {
  const left = date?.getTime() - Date.now()
  assert.ok(left <= ms, `${date?.toISOString()} is not within ${ms} ms`)
}

function failure({ type, message }) {
  return Object.assign(new Error(message), { name: type })
}

function retrying({ max_attempts, backoff_ms, dead_letter, ...unknown }) {
  assert.deepEqual(unknown, {}, 'unknown options of retry')
  const backoff = backoff_ms === undefined ? {} : { backoffMs: backoff_ms, backoffFactor: 1 }
  return given({ maxAttempts: max_attempts, deadLetter: dead_letter, ...backoff })
}

function check(message, expect = {}) {
  for (const [name, wanted] of Object.entries(expect)) {
    switch (name) {
      case 'payload':
        assert.ok(bytes(wanted).equals(message.payload), `payload is ${message.text.slice(0, 100)}`)
        break
      case 'headers':
        for (const [header, value] of Object.entries(wanted)) assert.equal(message.headers[header] ?? null, value, header)
        break
      case 'content_type':
        assert.equal(message.contentType ?? null, wanted)
        break
      case 'subject':
      case 'priority':
      case 'gap':
      case 'attempt':
        assert.deepEqual(message[name], wanted, name)
        break
      default:
        assert.fail(`no such field: ${name}`)
    }
  }
}

function bytes(value = '') {
  if (typeof value === 'string') return Buffer.from(value)
  if (value.hex !== undefined) return Buffer.from(value.hex, 'hex')
  return Buffer.from(value.repeat.repeat(value.count))
}

/** Waits until what `read` gives has the values that `expect` names by paths. */
async function meeting(read, expect) {
  let differs
  await until(async () => {
    const found = await read()
    differs = Object.entries(expect).filter(([path, wanted]) => !meets(lookUp(found, path), wanted))
      .map(([path, wanted]) => `${path} is ${JSON.stringify(lookUp(found, path))}, not ${JSON.stringify(wanted)}`)
    return differs.length === 0
  }, () => differs?.join('; '))
}

function lookUp(value, path) {
  for (const part of path.split('/')) {
    if (value === undefined) return undefined
    const camel = part.replace(/_(\w)/g, (_, letter) => letter.toUpperCase())
    value = Array.isArray(value) ? (value.find(item => (item.name ?? item.pattern) === part) ?? value[part]) : value[camel]
  }
  return value
}

function meets(value, wanted) {
  if (wanted === null) return value === undefined
  return typeof wanted === 'object' ? value >= wanted.at_least : value === wanted
}

async function until(condition, why = () => undefined) {
  const deadline = performance.now() + WATCHDOG_MS
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`the watchdog ended the wait: ${why() ?? condition}`)
    await new Promise(resolve => setTimeout(resolve, 2))
  }
}

function within(ms, work) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('the watchdog ended the step')), 2 * ms)
  })
  return Promise.race([work, late]).finally(() => clearTimeout(timer))
}

function named(map, name) {
  assert.ok(map.has(name), `nothing is named ${name}`)
  return map.get(name)
}

/** An object without the fields that are undefined. */
function given(fields) {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
}

function same(left, right) {
  return JSON.stringify(left) === JSON.stringify(right)
}

let passed = 0
let failed = 0
for (const file of files) {
  const scenario = JSON.parse(readFileSync(file, 'utf8'))
  for (const role of scenario.on ?? ['host', 'client']) {
    const run = new Run(scenario, role)
    try {
      await run.all()
      passed++
      console.log(`ok ${scenario.name} on ${role}`)
    } catch (error) {
      failed++
      const where = run.step === undefined ? 'setup' : `step ${run.at} (${run.step.do})`
      console.log(`FAILED ${scenario.name} on ${role}: ${where}: ${error?.stack ?? error}`)
    } finally {
      await run.end()
    }
  }
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed > 0 ? 1 : 0
