// Neither the DOM library nor @types/node: the package's types stand alone.
import { type Message, open } from 'flowmesh'

export async function use(): Promise<Message> {
  const mesh = await open('dir')
  const events = mesh.subscribe('a')
  await mesh.close()
  return events.receive({ timeoutMs: 5 })
}
