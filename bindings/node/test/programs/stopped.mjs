// Works on three jobs, stops, and has nothing left that keeps the process.
import { open } from 'flowmesh'

const mesh = await open(process.argv[2])
const queue = await mesh.declareQueue('q')
for (let at = 0; at < 3; at++) await queue.enqueue('x')
let seen = 0
const worker = mesh.process(queue, () => {
  if (++seen < 3) return
  worker.stop().then(() => console.log(`done ${worker.stats().done}`))
})
