import assert from 'node:assert/strict'
import test from 'node:test'
import { Message } from 'flowmesh'
import { client, host, pair, until } from './support.mjs'

for (const role of ['host', 'client']) {
  const acting = async (t, options) => {
    const mesh = await host(t, options)
    return role === 'host' ? mesh : client(t, mesh)
  }

  test(`${role}: bytes, text and objects arrive as what they were`, async t => {
    const mesh = await acting(t)
    const events = mesh.subscribe('a.*')
    const bytes = Buffer.from([0, 1, 255, 128])
    mesh.publish('a.bytes', bytes)
    mesh.publish('a.text', 'größe')
    mesh.publish('a.json', { list: [1, null, 'x'] })
    mesh.publish('a.array', [1, 2])
    mesh.publish('a.other', new Uint8Array([7]), { headers: { 'content-type': 'image/png', traceparent: '00-1-2-3' } })

    const first = await events.receive()
    assert.ok(first instanceof Message)
    assert.equal(first.subject, 'a.bytes')
    assert.deepEqual(first.payload, bytes)
    assert.deepEqual(first.value, bytes)
    assert.deepEqual(first.headers, {})
    assert.equal(first.contentType, undefined)
    const text = await events.receive()
    assert.equal(text.value, 'größe')
    assert.equal(text.contentType, 'text/plain; charset=utf-8')
    const json = await events.receive()
    assert.deepEqual(json.value, { list: [1, null, 'x'] })
    assert.equal(json.contentType, 'application/json')
    assert.equal(json.text, '{"list":[1,null,"x"]}')
    assert.deepEqual((await events.receive()).value, [1, 2])
    const other = await events.receive()
    assert.deepEqual(other.headers, { 'content-type': 'image/png', traceparent: '00-1-2-3' })
    assert.deepEqual(other.value, Buffer.from([7]))
  })

  test(`${role}: an event carries id, time, priority, gap and attempt`, async t => {
    const mesh = await acting(t)
    const events = mesh.subscribe('>')
    const before = BigInt(Date.now() - 1000) * 1_000_000n
    const id = mesh.publish('a', 'x', { priority: 9 })
    const event = await events.receive()
    assert.equal(typeof id, 'bigint')
    assert.equal(typeof event.id, 'bigint')
    assert.ok(event.timestamp > before && event.timestamp < before + 3_600_000_000_000n)
    assert.deepEqual([event.priority, event.gap, event.attempt], [9, 0, 1])
  })

  test(`${role}: publishMany keeps the order of many events, larger than any buffer`, async t => {
    const mesh = await acting(t)
    const events = mesh.subscribe('>', { capacity: 100_000 })
    const payloads = Array.from({ length: 20_000 }, (_, index) => `${index}${'.'.repeat(index % 90)}`)
    await mesh.publishMany('one', payloads)
    await mesh.publishMany([['two', { n: 1 }], ['two', { n: 2 }], ['three', { n: 3 }]])
    await mesh.publishMany('none', [])
    const got = []
    while (got.length < 20_003) got.push(...(await events.receiveMany(1000, { timeoutMs: 5000 })))
    assert.deepEqual(got.slice(0, 20_000).map(event => event.text), payloads)
    assert.deepEqual(got.slice(20_000).map(event => [event.subject, event.value.n]), [['two', 1], ['two', 2], ['three', 3]])
  })

  test(`${role}: large payloads arrive whole, and each message's bytes are its own`, async t => {
    const mesh = await acting(t)
    const events = mesh.subscribe('>')
    const large = Buffer.alloc(5_000_001, 'abcdefghij')
    for (const payload of [large, Buffer.from('small'), large.subarray(0, 300_000), Buffer.alloc(0)]) {
      await mesh.publishWait('a', payload, { headers: { kind: 'k' } })
      const event = await events.receive({ timeoutMs: 5000 })
      assert.ok(payload.equals(event.payload))
      assert.deepEqual(event.headers, { kind: 'k' })
    }
    mesh.publish('a', Buffer.from('one'))
    mesh.publish('a', Buffer.from('two'))
    const [one, two] = [await events.receive(), await events.receive()]
    one.payload.fill(0)
    assert.equal(two.text, 'two')
  })

  test(`${role}: publishWait and publishMany keep their order without being awaited`, async t => {
    const mesh = await acting(t)
    const events = mesh.subscribe('>')
    const under_way = [mesh.publishWait('a', '1'), mesh.publishMany('a', ['2', '3']), mesh.publishWait('a', '4')]
    assert.throws(() => mesh.publish('a', 'early'), { code: 'FULL' })
    await Promise.all(under_way)
    mesh.publish('a', '5')
    assert.deepEqual(await Promise.all([1, 2, 3, 4, 5].map(() => events.receive().then(m => m.text))), ['1', '2', '3', '4', '5'])
  })

  test(`${role}: loops and batches`, async t => {
    const mesh = await acting(t)
    const events = mesh.subscribe('n')
    await mesh.publishMany('n', Array.from({ length: 10 }, (_, n) => String(n)))
    const seen = []
    for await (const event of events) {
      seen.push(event.text)
      if (seen.length === 4) break
    }
    assert.equal(events.isClosed, false)
    assert.deepEqual(seen, ['0', '1', '2', '3'])
    assert.deepEqual(events.drain(2).map(event => event.text), ['4', '5'])
    assert.deepEqual((await events.receiveMany(100)).map(event => event.text), ['6', '7', '8', '9'])
    assert.deepEqual(events.drain(), [])
    const stats = events.stats()
    assert.deepEqual([stats.pattern, stats.delivered, stats.dropped, stats.depth], ['n', 10, 0, 0])
    setImmediate(() => events.close())
    for await (const event of events) assert.fail(`unexpected ${event.text}`)
    assert.equal(events.isClosed, true)
    assert.equal(await events.closed, undefined)
  })

  test(`${role}: waiting receivers are served in order, one event each`, async t => {
    const mesh = await acting(t)
    const events = mesh.subscribe('>')
    const waiting = [events.receive(), events.receiveMany(2), events.receive()]
    for (const text of ['1', '2']) mesh.publish('a', text)
    await waiting[0]
    const second = await waiting[1]
    for (const text of ['3', '4']) mesh.publish('a', text)
    const third = await waiting[2]
    assert.equal((await waiting[0]).text, '1')
    assert.equal(second[0].text, '2')
    assert.ok(['3', '4'].includes(third.text))
  })

  test(`${role}: a handler gets events one at a time; what fails comes again, then goes to the dead letters`, async t => {
    const mesh = await acting(t)
    const dead = mesh.subscribe('dead')
    const attempts = []
    let running = 0
    const options = { retry: { maxAttempts: 3, backoffMs: 1, deadLetter: 'dead' } }
    mesh.subscribe('work', options, async event => {
      assert.equal(++running, 1)
      await new Promise(resolve => setTimeout(resolve, 1))
      running--
      attempts.push([event.text, event.attempt])
      if (event.text === 'bad') throw new RangeError('no good')
    })
    mesh.publish('work', 'good')
    mesh.publish('work', 'bad')
    const letter = await dead.receive({ timeoutMs: 5000 })
    assert.equal(letter.text, 'bad')
    assert.match(JSON.stringify(letter.headers), /RangeError/)
    assert.match(JSON.stringify(letter.headers), /no good/)
    assert.deepEqual(attempts, [['good', 1], ['bad', 1], ['bad', 2], ['bad', 3]])
  })

  test(`${role}: fail() makes an event come again`, async t => {
    const mesh = await acting(t)
    const events = mesh.subscribe('work', { retry: { maxAttempts: 2, backoffMs: 0 } })
    mesh.publish('work', 'x')
    const first = await events.receive()
    await events.fail(first, new Error('later'))
    const again = await events.receive({ timeoutMs: 5000 })
    assert.deepEqual([again.text, again.attempt], ['x', 2])
    await assert.rejects(events.fail(first, new Error('twice')), { code: 'INVALID_ARGUMENT' })
  })

  test(`${role}: lost events are counted in the next one`, async t => {
    const mesh = await acting(t)
    const events = mesh.subscribe('n', { capacity: 2 })
    for (let n = 0; n < 5; n++) mesh.publish('n', String(n))
    await until(async () => (await mesh.stats()).bus.published === 5)
    await until(() => events.stats().depth === 2)
    const [event, next] = [await events.receive(), await events.receive()]
    assert.deepEqual([event.text, event.gap, next.text, next.gap], ['3', 3, '4', 0])
    assert.equal(events.stats().dropped, 3)
  })

  test(`${role}: a slow subscription can be ended`, async t => {
    const mesh = await acting(t)
    const events = mesh.subscribe('n', { capacity: 1, onSlow: 'disconnect' })
    for (let n = 0; n < 3; n++) mesh.publish('n', String(n))
    const reason = await (async () => {
      for (;;) {
        try {
          await events.receive({ timeoutMs: 5000 })
        } catch (error) {
          return error
        }
      }
    })()
    assert.equal(reason.code, 'SLOW_CONSUMER')
    assert.equal((await events.closed).code, 'SLOW_CONSUMER')
    await assert.rejects(events.receive(), { code: 'SLOW_CONSUMER' })
  })
}

test('a publisher is held up by a subscriber that blocks', async t => {
  const [mesh, publisher] = await pair(t)
  const events = mesh.subscribe('n', { capacity: 1, onSlow: 'block', blockTimeoutMs: 60_000 })
  const sent = []
  const publishing = (async () => {
    for (let n = 0; n < 50; n++) {
      await publisher.publishWait('n', String(n))
      sent.push(n)
    }
  })()
  await until(async () => (await mesh.stats()).bus.blocked > 0)
  const got = []
  while (got.length < 50) got.push((await events.receive({ timeoutMs: 5000 })).text)
  await publishing
  assert.deepEqual(got, Array.from({ length: 50 }, (_, n) => String(n)))
})

test('of a group one member gets each event', async t => {
  const mesh = await host(t)
  const members = [1, 2].map(() => mesh.subscribe('job', { group: 'workers' }))
  for (let n = 0; n < 10; n++) mesh.publish('job', String(n))
  const got = members.map(member => member.drain(100).map(event => event.text))
  assert.deepEqual(got.flat().sort(), ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
})

test('what has expired is not delivered, what is delayed comes later', async t => {
  const mesh = await host(t)
  const events = mesh.subscribe('n')
  mesh.publish('n', 'late', { ttlMs: 1 })
  await new Promise(resolve => setTimeout(resolve, 10))
  mesh.publish('n', 'delayed', { delayMs: 30 })
  mesh.publish('n', 'now')
  assert.equal((await events.receive()).text, 'now')
  assert.equal((await events.receive({ timeoutMs: 5000 })).text, 'delayed')
})

test('a timer gets its turn while events are always there', async t => {
  const mesh = await host(t)
  const events = mesh.subscribe('n', { capacity: 200_000 })
  await mesh.publishMany('n', Array.from({ length: 100_000 }, () => 'x'))
  let turns = 0
  const timer = setInterval(() => turns++, 1)
  for (let n = 0; n < 100_000; n++) await events.receive()
  clearInterval(timer)
  assert.ok(turns > 3, `${turns} turns`)
})
