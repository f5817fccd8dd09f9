import assert from 'node:assert/strict'
import test from 'node:test'
import { connect, connectTcp, FlowMeshError, open } from 'flowmesh'
import { directory, pair } from './support.mjs'

/** Each line: what is called, and a text that the message must contain: the value or its name, and the rule. */
const cases = ({ mesh, host, events, dir }) => [
  [() => open(5), /directory=5.*must be a string/],
  [() => open(''), /directory="".*must be a path/],
  [() => open('a\0b'), /directory="a.*must be a path/],
  [() => open(new URL('http://x/')), /directory="http:.*file:/],
  [() => open(dir, 5), /options=5.*must be an object/],
  [() => open(dir, { nam: 'x' }), /option="nam".*must be one of name/],
  [() => open(dir, { name: 5 }), /name=5.*must be a string/],
  [() => open(dir, { maxMessageBytes: 1023 }), /maxMessageBytes=1023.*1024 to 1073741824/],
  [() => open(dir, { maxMessageBytes: 4096.5 }), /maxMessageBytes=4096\.5.*whole number/],
  [() => open(dir, { maxMessageBytes: '4096' }), /maxMessageBytes="4096".*whole number/],
  [() => open(dir, { ringBytes: 2 ** 40 }), /ringBytes=1099511627776.*65536 to 67108864/],
  [() => open(dir, { ringBytes: 65_537 }), /65537.*power of two|power of two.*65537/],
  [() => open(dir, { maxSessions: 0 }), /maxSessions=0.*1 to/],
  [() => open(dir, { waitStrategy: 'lazy' }), /waitStrategy="lazy".*adaptive, block, spin/],
  [() => open(dir, { waitStrategy: { spinUs: -1 } }), /spinUs=-1.*0 to/],
  [() => open(dir, { breaker: { probes: 1.5 } }), /breaker\.probes=1\.5.*whole number/],
  [() => open(dir, { signal: {} }), /signal=an object.*AbortSignal/],
  [() => connect(dir, { timeoutMs: NaN }), /timeoutMs=NaN.*must be a number from 1/],
  [() => connect(dir, { timeoutMs: 10n }), /timeoutMs=10n.*must be a number/],
  [() => connect(dir, { sharedMemory: 'yes' }), /sharedMemory="yes".*true or false/],
  [() => connectTcp(7000, 'x'), /address=7000.*must be a string/],
  [() => connectTcp('127.0.0.1:1', 5), /secret=.*Uint8Array or a string/],
  [() => host.listenTcp('127.0.0.1:0', 'short'), /secret.*16/],

  [() => mesh.publish(5, 'x'), /subject=5.*must be a string/],
  [() => mesh.publish('', 'x'), /subject=.*empty/],
  [() => mesh.publish('a..b', 'x'), /a\.\.b.*empty/],
  [() => mesh.publish('a.*', 'x'), /a\.\*.*patterns only/],
  [() => mesh.publish('$sys.x', 'x'), /\$sys.*FlowMesh/],
  [() => mesh.publish('a'.repeat(256), 'x'), /256.*255/],
  [() => mesh.publish('\ud800', 'x'), /subject=.*half a character/],
  [() => mesh.publish('a', '\ud800'), /payload=.*half a character/],
  [() => mesh.publish('a'), /payload=undefined.*Uint8Array, a string/],
  [() => mesh.publish('a', null), /payload=null.*Uint8Array, a string/],
  [() => mesh.publish('a', 5), /payload=5.*Uint8Array, a string/],
  [() => mesh.publish('a', true), /payload=true/],
  [() => mesh.publish('a', 5n), /payload=5n/],
  [() => mesh.publish('a', () => {}), /payload=a function/],
  [() => mesh.publish('a', new ArrayBuffer(4)), /payload=an object \(ArrayBuffer\).*wrap/],
  [() => mesh.publish('a', new Uint16Array(4)), /payload=an object \(Uint16Array\).*wrap/],
  [() => mesh.publish('a', new Map()), /payload=an object \(Map\)/],
  [() => mesh.publish('a', Promise.resolve('x')), /payload=an object \(Promise\)/],
  [() => mesh.publish('a', { n: 1n }), /payload=an object.*BigInt/],
  [() => mesh.publish('a', 'x', 'y'), /options="y".*must be an object/],
  [() => mesh.publish('a', 'x', { ttl: 5 }), /option="ttl".*ttlMs/],
  [() => mesh.publish('a', 'x', { headers: ['a'] }), /headers=an array.*object of strings/],
  [() => mesh.publish('a', 'x', { headers: { a: 5 } }), /header a=5.*must be a string/],
  [() => mesh.publish('a', 'x', { headers: { '': 'a' } }), /header=.*empty/],
  [() => mesh.publish('a', 'x', { priority: 10 }), /priority=10.*0 to 9/],
  [() => mesh.publish('a', 'x', { priority: -1 }), /priority=-1.*0 to 9/],
  [() => mesh.publish('a', 'x', { priority: 1.5 }), /priority=1\.5.*whole number/],
  [() => mesh.publish('a', 'x', { ttlMs: 0 }), /ttlMs=0.*1 to/],
  [() => mesh.publish('a', 'x', { ttlMs: 2 ** 40 }), /ttlMs=1099511627776.*4233600000/],
  [() => mesh.publish('a', 'x', { delayMs: Infinity }), /delayMs=Infinity/],
  [() => mesh.publishWait('a', 'x', { timeoutMs: '5' }), /timeoutMs="5"/],
  [() => mesh.publishWait(undefined, 'x'), /subject=undefined/],
  [() => mesh.publishMany('a', 'x'), /events="x".*must be an array/],
  [() => mesh.publishMany([['a']]), /event=an array.*pair/],
  [() => mesh.publishMany(['ab']), /event="ab".*pair/],
  [() => mesh.publishMany([['', 'x']]), /subject=""/],
  [() => mesh.publishMany([['ok', 'x'], ['not ok', 'x']]), /not ok.*white space/],
  [() => mesh.publishMany([['a', 'x'], [5, 'x']]), /subject=5/],
  [() => mesh.publishMany('a', ['x', Buffer.from('x')]), /payload 1="bytes".*must be text/],
  [() => mesh.publishMany('a', ['x', 5]), /payload=5/],

  [() => mesh.subscribe(null), /pattern=null.*must be a string/],
  [() => mesh.subscribe('a.>.b'), /a\.>\.b.*only at the end/],
  [() => mesh.subscribe('a', { capacity: 0 }), /capacity=0.*1 to 1048576/],
  [() => mesh.subscribe('a', { capacity: 2 ** 32 + 5 }), /capacity=4294967301.*1 to 1048576/],
  [() => mesh.subscribe('a', { onSlow: 'drop' }), /onSlow="drop".*drop-oldest, block, disconnect/],
  [() => mesh.subscribe('a', { blockTimeoutMs: 5 }), /blockTimeoutMs=5.*block/],
  [() => mesh.subscribe('a', { group: 'no spaces' }), /no spaces.*letters, digits/],
  [() => mesh.subscribe('a', { priority: 2 ** 31 }), /priority=2147483648/],
  [() => mesh.subscribe('a', { retry: 5 }), /options=5.*must be an object/],
  [() => mesh.subscribe('a', { retry: { maxAttempts: 0 } }), /retry\.max_attempts=0.*1 to 1000/],
  [() => mesh.subscribe('a', { retry: { backoffFactor: 0.5 } }), /retry\.backoffFactor=0\.5.*1 to 1000/],
  [() => mesh.subscribe('a', { retry: { deadLetter: '$x' } }), /\$x.*FlowMesh/],
  [() => mesh.subscribe('a', { retry: { backoffMs: 10, backoffMsMax: 5 } }), /5ms.*10ms/],
  [() => mesh.subscribe('a', {}, 'handler'), /handler="handler".*must be a function/],
  [() => mesh.subscribe('a', { signal: 5 }), /signal=5.*AbortSignal/],
  [() => events.receive({ timeoutMs: -1 }), /timeoutMs=-1.*0 to/],
  [() => events.receive({ timeout: 5 }), /option="timeout".*timeoutMs/],
  [() => events.receiveMany(0), /max=0.*1 to/],
  [() => events.drain(1.5), /max=1\.5.*whole number/],
  [() => events.fail({}, new Error('x')), /message=an object.*must be a Message/],

  [() => mesh.serve(5, () => {}), /name=5.*must be a string/],
  [() => mesh.serve('a b', () => {}), /a b.*letters, digits/],
  [() => mesh.serve('a', 'handler'), /handler="handler".*must be a function/],
  [() => mesh.serve('a', () => {}, { concurrency: 0 }), /concurrency=0.*1 to 65536/],
  [() => mesh.serve('a', () => {}, { queue: -1 }), /queue=-1.*0 to/],
  [() => mesh.serve('a', () => {}, { rate: 0 }), /rate=0/],
  [() => mesh.serve('a', () => {}, { burst: 1.5 }), /burst=1\.5/],
  [() => mesh.serve('a', () => {}, { version: 'v'.repeat(256) }), /256.*255/],
  [() => mesh.call(5, 'x'), /name=5.*must be a string/],
  [() => mesh.call('a b', 'x'), /a b.*letters, digits/],
  [() => mesh.call('a', undefined), /payload=undefined/],
  [() => mesh.call('a', 'x', { timeoutMs: -1 }), /timeoutMs=-1.*0 to/],
  [() => mesh.call('a', 'x', { timeout: 5 }), /option="timeout".*timeoutMs/],
  [() => mesh.call('a', 'x', { signal: new AbortController() }), /signal=an object.*AbortSignal/],
]

for (const role of ['host', 'client']) {
  test(`${role}: bad input is refused with the value and the rule`, async t => {
    const [host, client] = await pair(t)
    const mesh = role === 'host' ? host : client
    const context = { mesh, host, events: mesh.subscribe('never'), dir: directory(t) }
    const wrong = []
    for (const [call, message] of cases(context)) {
      let error
      try {
        await call()
      } catch (thrown) {
        error = thrown
      }
      const right = error instanceof FlowMeshError && error.code === 'INVALID_ARGUMENT' && message.test(error.message)
      if (!right) wrong.push(`${call} gave ${error?.code}: ${error}`)
    }
    assert.deepEqual(wrong, [])
    // Nothing of all that changed anything.
    assert.equal((await mesh.stats()).bus.published, 0)
    assert.deepEqual(await mesh.services(), [])
  })
}

test('headers over their limits are too large', async t => {
  const [mesh] = await pair(t)
  const many = Object.fromEntries(Array.from({ length: 65 }, (_, n) => [`h${n}`, 'v']))
  assert.throws(() => mesh.publish('a', 'x', { headers: many }), error => error.code === 'TOO_LARGE' && /64/.test(error.message))
  assert.throws(() => mesh.publish('a', 'x', { headers: { a: 'v'.repeat(20_000) } }), { code: 'TOO_LARGE' })
})

test('a payload over the limit is too large', async t => {
  const [host, client] = await pair(t, { maxMessageBytes: 2048 })
  for (const mesh of [host, client]) {
    assert.equal(mesh.maxMessageBytes, 2048)
    for (const call of [
      () => mesh.publish('a', Buffer.alloc(2049)),
      () => mesh.publishWait('a', Buffer.alloc(2049)),
      () => mesh.publishMany('a', ['x', 'x'.repeat(2049)]),
      () => mesh.call('a', Buffer.alloc(2049)),
    ]) {
      await assert.rejects(async () => call(), error => error.code === 'TOO_LARGE' && /2049.*2048/.test(error.message))
    }
  }
  assert.equal((await host.stats()).bus.published, 0)
})
