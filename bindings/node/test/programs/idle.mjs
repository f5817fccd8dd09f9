// Uses a mesh in many ways and ends by itself, without closing it.
import { connect, open } from 'flowmesh'

const mesh = await (process.argv[3] === 'client' ? connect : open)(process.argv[2])
const events = mesh.subscribe('a')
mesh.publish('a', 'x')
await events.receive()
const service = mesh.serve('a', request => request.payload)
await mesh.call('a', 'x')
await mesh.stats()
await service.close()
events.close()
const other = mesh.subscribe('b').unref()
other.receive().catch(() => {})
console.log('done')
