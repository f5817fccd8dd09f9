// Runs the scenarios of this folder through the npm package `flowmesh`: see README.md.
//
//   node tests/behaviour/run.mjs [FILE…]

import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { connect, FlowMeshError, open, Reply } from '../../bindings/node/dist/index.mjs'

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

  async do_open({ as, dir }) {
    this.meshes.set(as, await open(this.path(dir), this.hostOptions(as)))
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
    const found = this.meshes.get(what) ?? this.subscriptions.get(what) ?? this.services.get(what)
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
    if (after_ms !== undefined) assert.ok(performance.now() - this.marked >= after_ms, 'it came too early')
    check(message, expect)
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
