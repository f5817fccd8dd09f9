// A program as a user with `strict` would write it. It is compiled, not run.
import {
  connect,
  connectTcp,
  type ErrorCode,
  FlowMeshError,
  type Mesh,
  type Message,
  open,
  Reply,
  type Service,
  type Stats,
  type Subscription,
} from 'flowmesh'

export async function use(): Promise<void> {
  await using mesh: Mesh = await open('dir', { name: 'a', maxMessageBytes: 1 << 20, ringBytes: 1 << 20, breaker: false })
  const client: Mesh = await connect(new URL('file:///dir'), { timeoutMs: 100, signal: AbortSignal.timeout(5), waitStrategy: { spinUs: 5 } })
  await connectTcp('127.0.0.1:7000', 'secret')
  const address: string = await mesh.listenTcp('127.0.0.1:0', new Uint8Array(16))

  const id: bigint = mesh.publish('a', new Uint8Array(1), { headers: { a: 'b' }, priority: 1, ttlMs: 1, delayMs: 1 })
  const later: bigint = await mesh.publishWait('a', { any: ['object', id.toString(), address] }, { timeoutMs: 5 })
  await mesh.publishMany('a', ['x', 'y'], { priority: 3 })
  await mesh.publishMany([['a', 'x'], ['b', 'y']])

  using events: Subscription = client.subscribe('a.*', {
    group: 'g',
    capacity: 10,
    onSlow: 'block',
    blockTimeoutMs: 10,
    retry: { maxAttempts: 3, backoffMs: 5, deadLetter: 'dead' },
    signal: new AbortController().signal,
  })
  for await (const event of events) {
    const payload: Uint8Array = event.payload
    const value: { n: number } = event.value
    const headers: string | undefined = event.headers['a']
    const numbers: [bigint, bigint, number, number, number] = [event.id, event.timestamp, event.priority, event.gap, event.attempt]
    console.log(payload, value.n, headers, numbers, event.contentType, event.text, event.subject, later)
  }
  const batch: Message[] = await events.receiveMany(5, { timeoutMs: 5 })
  const drained: Message[] = events.ref().unref().drain(5)
  await events.fail(batch[0] ?? drained[0]!, new Error('x'))
  mesh.subscribe('a', event => console.log(event.text))
  mesh.subscribe('a', { capacity: 5 }, async event => console.log(event.text))

  await using service: Service = mesh.serve('a', async (request, { signal, remainingMs }) => {
    await fetch('http://localhost', { signal })
    return new Reply({ remainingMs, got: request.value }, { headers: { a: 'b' } })
  }, { concurrency: 5, version: '1', queue: 5, rate: 5, burst: 5 })
  mesh.serve('nothing', () => {})
  const answer: Message = await mesh.call(service.name, 'x', { timeoutMs: 5, headers: {} })
  const stats: Stats = await mesh.stats()
  const instance: bigint | undefined = (await mesh.services())[0]?.instances[0]?.instance
  console.log(answer, stats.bus.published, instance)

  try {
    // @ts-expect-error: a number is no payload
    mesh.publish('a', 5)
    // @ts-expect-error: no such option
    mesh.publish('a', 'x', { ttl: 5 })
    // @ts-expect-error: no such policy
    mesh.subscribe('a', { onSlow: 'drop' })
  } catch (error) {
    if (!(error instanceof FlowMeshError)) throw error
    const code: ErrorCode = error.code
    const context: string | undefined = error.context['limit']
    if (code === 'TIMEOUT' && error.retryable) console.log(error.kind, context, error.operation, error.advice)
    // @ts-expect-error: no such code
    console.log(error.code === 'NONE')
  }
}
