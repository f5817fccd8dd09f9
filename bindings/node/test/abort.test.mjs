import assert from 'node:assert/strict'
import test from 'node:test'
import { connect, open } from 'flowmesh'
import { directory, host, pair } from './support.mjs'

const reason = new Error('not any more')

test('what is aborted before it starts does nothing', async t => {
  const [mesh] = await pair(t)
  const signal = AbortSignal.abort(reason)
  const events = mesh.subscribe('a')
  for (const call of [
    () => open(directory(t), { signal }),
    () => connect(mesh.directory, { signal }),
    () => mesh.subscribe('a', { signal }),
    () => mesh.call('a', 'x', { signal }),
    () => mesh.publishWait('a', 'x', { signal }),
    () => events.receive({ signal }),
    () => events.receiveMany(5, { signal }),
  ]) {
    await assert.rejects(async () => call(), error => error === reason, String(call))
  }
  assert.equal((await mesh.stats()).bus.published, 0)
})

test('an aborted receive leaves the event to the next', async t => {
  const mesh = await host(t)
  const events = mesh.subscribe('a')
  const controller = new AbortController()
  const aborted = events.receive({ signal: controller.signal })
  const next = events.receive()
  controller.abort(reason)
  await assert.rejects(aborted, error => error === reason)
  mesh.publish('a', 'x')
  assert.equal((await next).text, 'x')
})

test('a receive that times out leaves the event to the next', async t => {
  const mesh = await host(t)
  const events = mesh.subscribe('a')
  await assert.rejects(events.receive({ timeoutMs: 5 }), { code: 'TIMEOUT', operation: 'subscription.receive' })
  await assert.rejects(events.receive({ timeoutMs: 0 }), { code: 'TIMEOUT' })
  mesh.publish('a', 'x')
  assert.equal((await events.receive({ timeoutMs: 0 })).text, 'x')
})

test('the signal of a subscription ends its loop with the reason', async t => {
  const mesh = await host(t)
  const controller = new AbortController()
  const events = mesh.subscribe('a', { signal: controller.signal })
  mesh.publish('a', 'x')
  const seen = []
  await assert.rejects(async () => {
    for await (const event of events) {
      seen.push(event.text)
      controller.abort(reason)
    }
  }, error => error === reason)
  assert.deepEqual(seen, ['x'])
  assert.equal(await events.closed, reason)
  assert.throws(() => events.drain(), error => error === reason)
})

test('AbortSignal.timeout gives its own reason', async t => {
  const [mesh] = await pair(t)
  mesh.serve('never', (_, { signal }) => new Promise(resolve => signal.addEventListener('abort', resolve)))
  await assert.rejects(mesh.call('never', '', { signal: AbortSignal.timeout(10) }), { name: 'TimeoutError' })
})
