// A program as a user with `strict` would write it. It is compiled, not run.
import {
  connect,
  connectTcp,
  type Content,
  type Durability,
  type ErrorCode,
  FlowMeshError,
  inspect,
  type Inspection,
  type Job,
  type JobInfo,
  type Listed,
  type Mesh,
  type Message,
  open,
  type Queue,
  type QueueConfig,
  type QueueStats,
  type Reached,
  type Receipt,
  Reject,
  Reply,
  type ScheduleInfo,
  type Service,
  Snooze,
  type Stats,
  type Subscription,
  type Worker,
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

export async function useQueues(mesh: Mesh): Promise<void> {
  const durability: Durability = { intervalMs: 5 }
  const config: QueueConfig = {
    leaseMs: 60_000,
    backoff: { initialMs: 5, factor: 2, maxMs: 50, jitter: false },
    rate: { count: 5, perMs: 1000 },
    retention: { done: { ageMs: 1, count: 2 } },
    durability,
  }
  const mail: Queue = await mesh.declareQueue('mail', config)
  await mail.configure({ ...(await mail.config()), backoff: [1, 2], concurrency: 5 })
  const names: string[] = await mesh.queues()
  const receipt: Receipt = await mail.enqueue({ to: 'ann' }, {
    priority: 1,
    runAt: new Date(),
    unique: { key: 'k', scope: { windowMs: 5 }, onConflict: 'keep-last' },
    headers: { a: 'b' },
    backoff: 5,
    durability: 'fsync',
  })
  const receipts: Receipt[] = await mail.durable('os').enqueueMany([{ payload: 'x', delayMs: 5 }, { payload: new Uint8Array(1) }])
  const jobs: Job[] = await mail.reserve({ count: 5, leaseMs: 5000, timeoutMs: 5, signal: AbortSignal.timeout(5) })
  await using job: Job | undefined = await mail.next({ timeoutMs: 0 })
  if (job !== undefined) {
    const value: { to: string } = job.value
    const content: Content = job
    const left: number = await job.extend(5000)
    await job.progress(0.5)
    await fetch('http://localhost', { signal: job.signal })
    const reached: Reached = await job.ack({ sent: true }, { durability: 'fsync' })
    console.log(value, content.text, left, reached, job.attempt, job.group, job.queue.name)
  }
  await jobs[0]!.nack(new Error('x'), { delayMs: 5, detail: 'more' })
  const following: Job | undefined = await jobs[1]!.ackAndReserve({ sent: true }, { leaseMs: 5000 })
  await following?.ackAndReserve()
  const errors: (FlowMeshError | undefined)[] = await mail.ackMany(jobs)
  const came: 'now' | 'asked' | 'finished' = await mail.cancel(receipt.id, 'why')
  const count: number = await mail.redriveDead(5)
  await mail.redriveAt(5, { count: 1, perMs: 1 })
  await mail.purge('dead')
  await mail.schedule('report', '@daily', { kind: 'daily' }, { zone: 'Europe/Berlin', misfire: 'skip', options: { priority: 1 } })
  const schedules: ScheduleInfo[] = await mail.schedules()
  const stats: QueueStats = await mail.stats()
  const listed: Listed = await mail.list('ready', { limit: 5, cursor: 'x' })
  for await (const info of mail.jobs('dead')) {
    const found: JobInfo = info
    console.log(found.failures[0]?.detail, found.due?.getTime())
  }
  const result: unknown = (await mail.result(receipt.id))?.value
  console.log(names, receipts, errors, came, count, schedules[0]?.next, stats.jobs.retry_wait, listed.next, result)

  await using worker: Worker = mesh.process('mail', async job => {
    if (job.attempt > 3) throw new Reject('enough')
    if (job.isCancelled) throw new Snooze(5)
    return { ok: true }
  }, { concurrency: 50, leaseMs: 5000, durability: 'os', onFailed: (job, error) => console.log(job.id, error) })
  mesh.process(mail, () => {}, { onError: error => console.log(error) }).unref()
  const finished: boolean = await worker.stop({ timeoutMs: 5 })
  const { damages }: Inspection = await inspect('dir')
  console.log(finished, worker.stats().lost, damages[0]?.offset)

  // @ts-expect-error: no such setting
  await mesh.declareQueue('mail', { lease: 5 })
  // @ts-expect-error: not one of the policies
  await mail.enqueue('x', { unique: { key: 'k', onConflict: 'keep_last' } })
  // @ts-expect-error: a number is no payload
  await mail.enqueue(5)
  // @ts-expect-error: no such state
  await mail.list('asleep')
  // @ts-expect-error: a handler's result is a payload
  mesh.process('mail', () => 5)
}
