// Stays alive for what its argument names, until that ends.
import { connect } from 'flowmesh'

const mesh = await connect(process.argv[2])
const what = process.argv[3]
if (what === 'subscribed') {
  const events = mesh.subscribe('stop', () => events.close())
} else if (what === 'serving') {
  const service = mesh.serve('stop', () => void service.close())
} else {
  mesh.call('hold', '').then(() => {})
}
process.send('ready')
process.disconnect()
