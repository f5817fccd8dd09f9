// The Node client of the demo: words and headings of every file that the host publishes.
//
//     node words.mjs DIRECTORY      the mesh's directory
//
// It serves `words.count` to the others, and calls two services of theirs for each file: `files.kind` of the Python
// host, and `checksum.crc32c` of the C client, whose answer the host compares with what C itself reports. A call with
// the header `hold` is never answered: the host kills this process while such a call waits.

import process from 'node:process'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect, FlowMeshError } from 'flowmesh'

const KIND_BYTES = 512
const RETRY_MS = 20_000

const mesh = await connect(process.argv[2], { name: 'words' })

const service = mesh.serve(
  'words.count',
  async (request, { signal }) => {
    if (request.headers.hold === undefined) return String(countWords(request.payload))
    await mesh.publishWait('workers.holding', 'words')
    await new Promise(resolve => signal.addEventListener('abort', resolve))
  },
  { concurrency: 16 },
)

const files = mesh.subscribe('files.*')
await Promise.all([service.ready, files.ready])
await mesh.publishWait('workers.ready', 'words')

for await (const file of files) {
  if (file.gap > 0) throw new Error(`${file.gap} files were lost`)
  if (file.subject === 'files.end') break
  if ((file.headers.for ?? 'words') === 'words') await take(file)
}
await mesh.close()

async function take(file) {
  const kind = await ask('files.kind', file.payload.subarray(0, KIND_BYTES))
  const crc32c = await ask('checksum.crc32c', file.payload)
  const isText = kind === 'text'
  await mesh.publishWait('results.words', '', {
    headers: {
      number: file.headers.number,
      words: String(isText ? countWords(file.payload) : 0),
      headings: String(isText ? countHeadings(file.payload) : 0),
      crc32c,
    },
  })
}

// Calls, and calls again while nobody answers: the instance may just have died, and another be on its way.
async function ask(service, payload) {
  const giveUp = Date.now() + RETRY_MS
  for (;;) {
    try {
      return (await mesh.call(service, payload)).text
    } catch (error) {
      const again = error instanceof FlowMeshError && error.retryable && error.code !== 'DISCONNECTED'
      if (!again || Date.now() > giveUp) throw error
      await sleep(20)
    }
  }
}

// By bytes, not by letters, so that text in any encoding counts the same in every language.
function countWords(payload) {
  return payload.latin1Slice().match(/[0-9A-Za-z_\x80-\xff]+/g)?.length ?? 0
}

function countHeadings(payload) {
  return payload.latin1Slice().match(/(?:^|\n)#{1,6} /g)?.length ?? 0
}
