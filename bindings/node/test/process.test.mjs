import assert from 'node:assert/strict'
import test from 'node:test'
import { connect } from 'flowmesh'
import { directory, ended, host, message, program, until } from './support.mjs'

test('a host and a client in two processes', async t => {
  const dir = directory(t)
  const server = program(t, 'host.mjs', dir)
  await message(server)
  const mesh = await connect(dir)
  t.after(() => mesh.close())
  assert.equal(mesh.hostPid, server.pid)
  assert.equal((await mesh.call('pid', '')).text, String(server.pid))
  const events = mesh.subscribe('from.host')
  const large = Buffer.alloc(2_000_000, 'xyz')
  await mesh.publishWait('to.host', large)
  assert.ok(large.equals((await events.receive({ timeoutMs: 5000 })).payload))
  for (let n = 0; n < 200; n++) {
    assert.equal((await mesh.call('echo', String(n))).text, String(n))
    mesh.publish('to.host', String(n))
    assert.equal((await events.receive({ timeoutMs: 5000 })).text, String(n))
  }
})

for (const how of ['close', 'kill']) {
  test(`a host that ends (${how}) is seen by all that waits`, async t => {
    const dir = directory(t)
    const server = program(t, 'host.mjs', dir)
    await message(server)
    const mesh = await connect(dir)
    t.after(() => mesh.close())
    const events = mesh.subscribe('>')
    const service = mesh.serve('mine', () => {})
    const waiting = Promise.allSettled([events.receive(), mesh.call('never', '')])
    await until(async () => (await mesh.stats()).services.some(found => found.inFlight === 1))
    if (how === 'close') server.send('close')
    else server.kill('SIGKILL')
    const reasons = (await waiting).map(({ reason }) => reason.code)
    assert.deepEqual(reasons, ['DISCONNECTED', 'DISCONNECTED'])
    assert.equal((await events.closed).code, 'DISCONNECTED')
    assert.equal((await service.closed).code, 'DISCONNECTED')
    assert.throws(() => mesh.publish('a', 'x'), { code: 'DISCONNECTED', retryable: true })
    await assert.rejects(mesh.call('echo', 'x'), { code: 'DISCONNECTED' })
    assert.equal(mesh.isClosed, true)
    assert.throws(() => mesh.subscribe('a'), { code: 'DISCONNECTED' })
  })
}

test('a client that dies while it serves fails the calls to it', async t => {
  const mesh = await host(t)
  const server = program(t, 'busy.mjs', mesh.directory, 'serving')
  await message(server)
  await until(async () => (await mesh.services()).length === 1)
  const stopped = program(t, 'busy.mjs', mesh.directory, 'calling')
  await message(stopped)
  let taken
  mesh.serve('hold', () => new Promise(resolve => (taken = resolve)))
  server.kill('SIGKILL')
  await until(async () => (await mesh.services()).every(service => service.name !== 'stop'))
  await assert.rejects(mesh.call('stop', ''), { code: 'NO_SERVICE' })
  taken?.()
})

for (const role of ['host', 'client']) {
  test(`a ${role} process ends by itself when nothing is subscribed or served`, async t => {
    const dir = role === 'host' ? directory(t) : (await host(t)).directory
    const child = program(t, 'idle.mjs', dir, role)
    child.disconnect()
    assert.deepEqual(await ended(child), { code: 0, signal: null })
    assert.equal(child.output, 'done\n')
  })
}

for (const [what, stop] of [
  ['subscribed', mesh => mesh.publish('stop', '')],
  ['serving', mesh => mesh.call('stop', '')],
  ['calling', (_, release) => release()],
]) {
  test(`a process that is ${what} lives until that ends`, async t => {
    const mesh = await host(t)
    let taken
    mesh.serve('hold', () => new Promise(resolve => (taken = resolve)))
    const child = program(t, 'busy.mjs', mesh.directory, what)
    await message(child)
    await until(async () => {
      const stats = await mesh.stats()
      return stats.subscriptions.length > 0 || taken || stats.services.some(found => found.name === 'stop')
    })
    await new Promise(resolve => setTimeout(resolve, 100))
    assert.equal(child.exitCode, null)
    await stop(mesh, () => taken())
    assert.deepEqual(await ended(child), { code: 0, signal: null })
  })
}

test('a host that hangs does not hang the event loop', async t => {
  const dir = directory(t)
  const server = program(t, 'host.mjs', dir)
  await message(server)
  const mesh = await connect(dir)
  t.after(() => mesh.close())
  server.kill('SIGSTOP')
  let longest = 0
  let last = performance.now()
  const timer = setInterval(() => {
    longest = Math.max(longest, performance.now() - last)
    last = performance.now()
  }, 1)
  await assert.rejects(mesh.call('echo', 'x', { timeoutMs: 50 }), { code: 'TIMEOUT' })
  await assert.rejects(mesh.publishMany('a', Array(50).fill(Buffer.alloc(60_000)), { timeoutMs: 50 }), { code: 'TIMEOUT' })
  assert.throws(() => {
    for (;;) mesh.publish('a', Buffer.alloc(1000))
  }, { code: 'TIMEOUT' })
  clearInterval(timer)
  assert.ok(longest < 1000, `${longest} ms`)
  server.kill('SIGCONT')
  assert.equal((await mesh.call('echo', 'x')).text, 'x')
})

test('subscribing and serving go on when the host was slow to answer', async t => {
  const dir = directory(t)
  const server = program(t, 'host.mjs', dir)
  await message(server)
  const mesh = await connect(dir)
  t.after(() => mesh.close())
  server.kill('SIGSTOP')
  const events = mesh.subscribe('from.host')
  const service = mesh.serve('mine', () => 'here')
  const dropped = mesh.subscribe('other')
  dropped.close()
  const received = events.receive()
  server.kill('SIGCONT')
  await Promise.all([events.ready, service.ready])
  mesh.publish('to.host', 'x')
  assert.equal((await received).text, 'x')
  assert.equal((await mesh.call('mine', '')).text, 'here')
  await until(async () => (await mesh.stats()).subscriptions.every(found => found.pattern !== 'other'))
})
