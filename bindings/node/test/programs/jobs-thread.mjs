// A worker thread that takes jobs of the queue `q` and never ends them, while it asks for other things.
import { parentPort, workerData } from 'node:worker_threads'
import { connect } from 'flowmesh'

const mesh = await connect(workerData)
mesh.process('q', job => {
  parentPort.postMessage(job.text)
  return new Promise(() => {})
}, { concurrency: 2 })
const queue = await mesh.queue('q')
for (;;) await queue.stats()
