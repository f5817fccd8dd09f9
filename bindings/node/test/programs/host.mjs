// A host that serves `echo` and `pid`, counts events, and does what it is told.
import { open } from 'flowmesh'

const mesh = await open(process.argv[2], { name: 'host' })
mesh.serve('echo', request => request.payload)
mesh.serve('pid', () => String(process.pid))
mesh.serve('never', () => new Promise(() => {}))
mesh.subscribe('to.host', event => mesh.publish('from.host', event.payload))
process.on('message', async what => {
  if (what === 'close') await mesh.close()
  process.disconnect()
})
process.send('ready')
