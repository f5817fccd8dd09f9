import assert from 'node:assert/strict'
import { once } from 'node:events'
import test from 'node:test'
import { Worker } from 'node:worker_threads'
import { directory, ended, host, program, until } from './support.mjs'

const file = new URL('programs/worker.mjs', import.meta.url)

async function worker(t, mesh, name, busy = false) {
  const made = new Worker(file, { workerData: { directory: mesh.directory, name, busy } })
  t.after(() => made.terminate())
  await once(made, 'message')
  return made
}

test('workers are clients like any other', async t => {
  const mesh = await host(t)
  await Promise.all([worker(t, mesh, 'one'), worker(t, mesh, 'two')])
  assert.equal((await mesh.call('one', 'x')).text, 'one: x')
  assert.equal((await mesh.call('two', 'x')).text, 'two: x')
  await assert.rejects(mesh.call('one', 'fail'), { code: 'HANDLER_FAILED' })
  const events = mesh.subscribe('from.worker')
  mesh.publish('to.worker', 'hi')
  const got = [await events.receive({ timeoutMs: 5000 }), await events.receive({ timeoutMs: 5000 })]
  assert.deepEqual(got.map(event => event.text).sort(), ['one hi', 'two hi'])
})

test('a worker that is terminated, idle or busy, leaves nothing behind', async t => {
  const mesh = await host(t)
  for (let round = 0; round < 6; round++) {
    const ending = await worker(t, mesh, 'ending', round % 2 === 1)
    if (round % 2 === 1) await new Promise(resolve => setTimeout(resolve, 20))
    await ending.terminate()
    await until(async () => {
      const stats = await mesh.stats()
      return stats.sessions.length === 0 && stats.subscriptions.length === 0
    })
    await assert.rejects(mesh.call('ending', 'x'), { code: 'NO_SERVICE' })
  }
})

test('a process with workers on a mesh ends cleanly', async t => {
  const child = program(t, 'workers.mjs', directory(t))
  child.disconnect()
  assert.deepEqual(await ended(child), { code: 0, signal: null })
  assert.equal(child.output, 'done\n')
})
