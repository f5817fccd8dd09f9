import assert from 'node:assert/strict'
import test from 'node:test'
import { FlowMeshError, Reply } from 'flowmesh'
import { client, host, pair, until } from './support.mjs'

const directions = {
  'host to host': async t => Array(2).fill(await host(t)),
  'client to host': pair,
  'host to client': async t => (await pair(t)).reverse(),
  'client to client': async t => {
    const mesh = await host(t)
    return [await client(t, mesh), await client(t, mesh)]
  },
}

for (const [direction, make] of Object.entries(directions)) {
  test(`${direction}: bytes, text, objects and nothing are answered as such`, async t => {
    const [server, caller] = await make(t)
    server.serve('echo', request => request.value)
    server.serve('nothing', () => {})
    server.serve('later', async request => ({ got: request.value, service: request.subject }))
    server.serve('headers', request => new Reply(request.payload, { headers: request.headers }))
    assert.deepEqual((await caller.call('echo', Buffer.from([1, 2]))).payload, Buffer.from([1, 2]))
    assert.equal((await caller.call('echo', 'text')).value, 'text')
    assert.deepEqual((await caller.call('echo', { a: [1] })).value, { a: [1] })
    assert.equal((await caller.call('nothing', '')).payload.length, 0)
    assert.deepEqual((await caller.call('later', { a: 1 })).value, { got: { a: 1 }, service: 'later' })
    const answer = await caller.call('headers', 'x', { headers: { a: 'b', 'content-type': 'text/x' } })
    assert.deepEqual(answer.headers, { a: 'b', 'content-type': 'text/x' })
  })

  test(`${direction}: large requests and answers`, async t => {
    const [server, caller] = await make(t)
    server.serve('echo', request => request.payload)
    const large = Buffer.alloc(3_000_000, 'abc')
    assert.ok(large.equals((await caller.call('echo', large)).payload))
  })

  test(`${direction}: a handler that throws or rejects fails the call with its type and message`, async t => {
    const [server, caller] = await make(t)
    class OrderError extends Error {
      name = 'OrderError'
    }
    const failures = {
      throws: () => { throw new OrderError('no such order') },
      rejects: async () => { throw new OrderError('no such order') },
      string: () => { throw 'no such order' },
      strange: () => { throw Object.create(null) },
      unanswerable: () => 5n,
      circular: () => { const a = {}; a.a = a; return a },
    }
    for (const [name, handler] of Object.entries(failures)) server.serve(name, handler)
    for (const name of ['throws', 'rejects']) {
      await assert.rejects(caller.call(name, ''), error => {
        assert.ok(error instanceof FlowMeshError)
        assert.equal(error.code, 'HANDLER_FAILED')
        assert.equal(error.context.type, 'OrderError')
        assert.equal(error.context.message, 'no such order')
        assert.equal(error.context.service, name)
        return true
      })
    }
    await assert.rejects(caller.call('string', ''), { code: 'HANDLER_FAILED', message: /no such order/ })
    await assert.rejects(caller.call('strange', ''), { code: 'HANDLER_FAILED' })
    for (const name of ['unanswerable', 'circular']) {
      await assert.rejects(caller.call(name, ''), error => error.code === 'HANDLER_FAILED' && error.context.type === 'FlowMeshError')
    }
    assert.equal((await caller.call('string', '').catch(error => error)).context.type, 'string')
  })

  test(`${direction}: a caller that gives up reaches the handler`, async t => {
    const [server, caller] = await make(t)
    const reasons = []
    server.serve('never', async (request, { signal }) => {
      await new Promise(resolve => signal.addEventListener('abort', resolve, { once: true }))
      reasons.push(signal.reason.code)
    }, { concurrency: 2 })
    const reason = new Error('changed my mind')
    const controller = new AbortController()
    const call = caller.call('never', '', { signal: controller.signal })
    await until(async () => (await caller.stats()).services[0].inFlight === 1)
    controller.abort(reason)
    await assert.rejects(call, error => error === reason)
    await until(() => reasons.length === 1)
    await assert.rejects(caller.call('never', '', { timeoutMs: 20 }), { code: 'TIMEOUT' })
    await until(() => reasons.length === 2)
    assert.deepEqual(reasons, ['CANCELLED', 'CANCELLED'])
  })
}

test('a service takes no more calls at once than its concurrency', async t => {
  const [server, caller] = await pair(t)
  let running = 0
  let most = 0
  server.serve('slow', async () => {
    most = Math.max(most, ++running)
    await new Promise(resolve => setTimeout(resolve, 2))
    running--
  }, { concurrency: 3 })
  await Promise.all(Array.from({ length: 20 }, () => caller.call('slow', '')))
  assert.equal(most, 3)
})

test('many calls at once, in both directions', async t => {
  const [a, b] = await pair(t)
  a.serve('double', request => String(2 * Number(request.text)), { concurrency: 16 })
  b.serve('triple', request => String(3 * Number(request.text)), { concurrency: 16 })
  const answers = await Promise.all(
    Array.from({ length: 500 }, async (_, n) => [
      Number((await b.call('double', String(n))).text),
      Number((await a.call('triple', String(n))).text),
    ]),
  )
  answers.forEach(([double, triple], n) => assert.deepEqual([double, triple], [2 * n, 3 * n]))
})

test('discovery lists instances, statistics count calls', async t => {
  const [server, caller] = await pair(t)
  await assert.rejects(caller.call('text.upper', 'x'), { code: 'NO_SERVICE', retryable: true })
  const service = server.serve('text.upper', request => request.text.toUpperCase(), { version: '1.4.0', concurrency: 2 })
  caller.serve('text.upper', request => request.text.toUpperCase(), { version: '2.0.0' })
  for (let n = 0; n < 4; n++) assert.equal((await caller.call('text.upper', 'x')).text, 'X')
  const [found, ...others] = await caller.services()
  assert.equal(others.length, 0)
  assert.equal(found.name, 'text.upper')
  assert.deepEqual(found.instances.map(instance => instance.version).sort(), ['1.4.0', '2.0.0'])
  const [own] = found.instances.filter(instance => instance.version === '1.4.0')
  assert.equal(typeof own.instance, 'bigint')
  assert.deepEqual([own.pid, own.concurrency, own.client], [process.pid, 2, 'host'])
  const stats = await caller.stats()
  assert.deepEqual([stats.services[0].name, stats.services[0].calls], ['text.upper', 4])
  assert.equal(stats.services[0].latency.count, 4)
  assert.ok(stats.services[0].latency.p50Ns > 0 && stats.services[0].latency.p99Ns >= stats.services[0].latency.p50Ns)
  assert.equal(stats.sessions[0].language, 'node')
  await service.close()
  assert.equal((await caller.services())[0].instances.length, 1)
})

test('closing lets a handler that runs answer, but takes no further call', async t => {
  const [server, caller] = await pair(t)
  let go
  const service = server.serve('slow', () => new Promise(resolve => (go = resolve)))
  const call = caller.call('slow', '')
  await until(() => go)
  await service.close()
  go('done')
  assert.equal((await call).text, 'done')
  await assert.rejects(caller.call('slow', ''), { code: 'NO_SERVICE' })
})

test('a rate limit says when to come again', async t => {
  const [server, caller] = await pair(t)
  server.serve('few', () => {}, { rate: 0.001, burst: 2 })
  await caller.call('few', '')
  await caller.call('few', '')
  await assert.rejects(caller.call('few', ''), error => {
    assert.equal(error.code, 'RATE_LIMITED')
    assert.ok(Number(error.context.retry_after_ms) > 0)
    return true
  })
})

test('an answer over the limit fails its call', async t => {
  const [server, caller] = await pair(t, { maxMessageBytes: 4096 })
  server.serve('big', () => Buffer.alloc(5000))
  await assert.rejects(caller.call('big', ''), { code: 'TOO_LARGE' })
  await assert.rejects(caller.call('big', Buffer.alloc(4097)), error => {
    assert.equal(error.code, 'TOO_LARGE')
    assert.match(error.message, /4097/)
    assert.match(error.message, /4096/)
    return true
  })
})

test('a buffer reused after call() returned does not change what was sent', async t => {
  const mesh = await host(t)
  const buffer = Buffer.alloc(4)
  mesh.serve('echo', request => request.payload, { concurrency: 100 })
  const answers = Array.from({ length: 300 }, (_, n) => {
    buffer.writeUInt32LE(n)
    return mesh.call('echo', buffer)
  })
  const numbers = (await Promise.all(answers)).map(answer => answer.payload.readUInt32LE())
  assert.deepEqual(numbers, Array.from({ length: 300 }, (_, n) => n))
})
