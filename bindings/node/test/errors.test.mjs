import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import test from 'node:test'
import { connect, errorKinds, FlowMeshError, open } from 'flowmesh'
import { directory, host } from './support.mjs'

const require = createRequire(import.meta.url)

test('the list of kinds is that of the native side', () => {
  const native = require(`../flowmesh.${process.platform}-${process.arch}.node`)
  const kinds = Object.fromEntries(JSON.parse(native.kinds()).map(({ code, ...rest }) => [code, rest]))
  assert.deepEqual(JSON.parse(JSON.stringify(errorKinds)), kinds)
})

test('an error tells its kind, its advice and whether to retry', () => {
  const error = new FlowMeshError('RATE_LIMITED', 'mesh.call', { service: 'a', retry_after_ms: '5' })
  assert.ok(error instanceof Error)
  assert.equal(error.name, 'FlowMeshError')
  assert.deepEqual([error.code, error.kind, error.retryable], ['RATE_LIMITED', 'RateLimited', true])
  assert.match(error.advice, /retry_after_ms/)
  assert.equal(error.message, "mesh.call: the service's rate limit is reached (service=a, retry_after_ms=5)")
  assert.match(error.stack, /errors\.test/)
  const cause = new Error('x')
  assert.equal(new FlowMeshError('IO', 'a', {}, { cause }).cause, cause)
})

test('a second host is told who the first is', async t => {
  const mesh = await host(t)
  await assert.rejects(open(mesh.directory), error => {
    assert.equal(error.code, 'ALREADY_OPEN')
    assert.equal(error.context.pid, String(process.pid))
    assert.equal(error.retryable, true)
    return true
  })
})

test('without a host there is nothing to connect to', async t => {
  const dir = directory(t)
  await assert.rejects(connect(dir), { code: 'NOT_FOUND', operation: 'mesh.connect' })
  await assert.rejects(connect(`${dir}/none`), { code: 'NOT_FOUND' })
})

test('a closed mesh, subscription and service say so', async t => {
  const mesh = await host(t)
  const events = mesh.subscribe('a')
  const service = mesh.serve('a', () => {})
  const waiting = Promise.allSettled([events.receive(), mesh.call('a', 'x')])
  await Promise.all([mesh.close(), mesh.close()])
  assert.deepEqual((await waiting).map(({ reason }) => reason.code), ['CLOSED', 'CLOSED'])
  assert.deepEqual([mesh.isClosed, events.isClosed, service.isClosed], [true, true, true])
  assert.deepEqual([await events.closed, await service.closed], [undefined, undefined])
  for (const call of [
    () => mesh.publish('a', 'x'),
    () => mesh.publishWait('a', 'x'),
    () => mesh.publishMany('a', ['x']),
    () => mesh.subscribe('a'),
    () => mesh.serve('a', () => {}),
    () => mesh.call('a', 'x'),
    () => mesh.services(),
    () => mesh.stats(),
    () => mesh.listenTcp('127.0.0.1:0', 'x'.repeat(16)),
    () => events.receive(),
    () => events.drain(),
    () => events.stats(),
  ]) {
    await assert.rejects(async () => call(), { code: 'CLOSED' }, String(call))
  }
  events.close()
  await service.close()
  await mesh.close()
})

test('disposal closes', async t => {
  const dir = directory(t)
  const mesh = await open(dir)
  const events = mesh.subscribe('a')
  events[Symbol.dispose]()
  assert.equal(events.isClosed, true)
  mesh[Symbol.dispose]()
  const again = await open(dir)
  await again[Symbol.asyncDispose]()
  assert.equal(again.isClosed, true)
})

test('the documentation names every kind', { skip: !exists('../../../docs/errors.md') }, () => {
  const page = readFileSync(new URL('../../../docs/errors.md', import.meta.url), 'utf8')
  for (const code of Object.keys(errorKinds)) assert.ok(page.includes(code), code)
})

function exists(path) {
  try {
    readFileSync(new URL(path, import.meta.url))
    return true
  } catch {
    return false
  }
}
