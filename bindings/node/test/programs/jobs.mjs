// A client that takes jobs of the queue `q` and never ends them.
import { connect } from 'flowmesh'

const mesh = await connect(process.argv[2])
mesh.process('q', job => {
  process.send(job.text)
  return new Promise(() => {})
}, { concurrency: 2 })
