// Ends while its workers are busy, and while one of them is the host.
import { once } from 'node:events'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'
import { fileURLToPath } from 'node:url'
import { connect, open } from 'flowmesh'

if (isMainThread) {
  const dir = process.argv[2]
  const workers = []
  for (const role of ['host', 'client', 'client']) {
    const made = new Worker(fileURLToPath(import.meta.url), { workerData: { dir, role } })
    await once(made, 'message')
    workers.push(made)
  }
  const mesh = await connect(dir)
  await mesh.call('echo', 'x')
  mesh.subscribe('a')
  console.log('done')
  process.exit(0)
} else {
  const mesh = await (workerData.role === 'host' ? open : connect)(workerData.dir)
  if (workerData.role === 'host') mesh.serve('echo', request => request.payload, { concurrency: 4 })
  parentPort.postMessage('ready')
  for (;;) await mesh.call('echo', 'x')
}
