// A worker that serves, subscribes and calls, and is ended in the midst of it.
import { parentPort, workerData } from 'node:worker_threads'
import { connect, FlowMeshError } from 'flowmesh'

const mesh = await connect(workerData.directory, { name: workerData.name })
mesh.serve(workerData.name, async request => {
  if (request.text === 'fail') throw new FlowMeshError('INTERNAL', 'test')
  return `${workerData.name}: ${request.text}`
}, { concurrency: 4 })
mesh.subscribe('to.worker', event => mesh.publish('from.worker', `${workerData.name} ${event.text}`))
parentPort.postMessage('ready')
if (workerData.busy) for (;;) await mesh.call(workerData.name, 'again')
