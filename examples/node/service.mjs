// A service and its caller in two processes, with an error, a deadline and a cancellation that arrive.
//
//   node service.mjs DIRECTORY serve       serves `text.upper` and `text.slow` until `text.stop` is called
//   node service.mjs DIRECTORY call

import { setTimeout as sleep } from 'node:timers/promises'
import { connect, FlowMeshError, open } from 'flowmesh'

const [directory, role] = process.argv.slice(2)

class EmptyText extends Error {
  name = 'EmptyText'
}

if (role === 'serve') {
  const mesh = await open(directory, { name: 'text' })
  mesh.serve('text.upper', request => {
    if (request.text === '') throw new EmptyText('there is nothing to write larger')
    return request.text.toUpperCase()
  }, { concurrency: 8, version: '1.0.0' })
  mesh.serve('text.slow', async (request, { signal }) => {
    // Ends at once when nobody waits any more.
    await sleep(60_000, undefined, { signal }).catch(() => console.log('the caller gave up'))
  })
  mesh.serve('text.stop', () => void setImmediate(() => mesh.close()))
  console.log('serving text.upper')
} else {
  const mesh = await connect(directory, { name: 'caller' })
  console.log((await mesh.call('text.upper', 'hello')).text)
  try {
    await mesh.call('text.upper', '')
  } catch (error) {
    if (!(error instanceof FlowMeshError) || error.code !== 'HANDLER_FAILED') throw error
    console.log(`refused: ${error.context.type}: ${error.context.message}`)
  }
  await mesh.call('text.slow', '', { timeoutMs: 50 }).catch(error => console.log(error.code))
  await mesh.call('text.slow', '', { signal: AbortSignal.timeout(50) }).catch(error => console.log(error.name))
  for (const { name, instances } of await mesh.services()) console.log(`${name}: ${instances.length} instance`)
  await mesh.call('text.stop', '')
  await mesh.close()
}
