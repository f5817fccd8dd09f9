// The Node worker of the demo: words and headings of every file that the host enqueues.
//
//     node words.mjs DIRECTORY      the mesh's directory
//
// It serves `words.count` to the others, and calls two services of theirs for each file: `files.kind` of the Python
// host, and `checksum.crc32c` of the C worker, whose answer the host compares with what C itself reports. Who fails to
// answer fails the job, which is tried again. A job with the header `hold` is held at its first attempt: the host kills
// this process while it has it.

import process from 'node:process'
import { connect } from 'flowmesh'

const KIND_BYTES = 512

const mesh = await connect(process.argv[2], { name: 'words' })
const service = mesh.serve('words.count', request => String(countWords(request.payload)), { concurrency: 16 })
const end = mesh.subscribe('files.end')
await Promise.all([service.ready, end.ready])

const worker = mesh.process('words', count, { concurrency: 4, onFailed: () => {} })
await worker.ready
await mesh.publishWait('workers.ready', 'words')
await end.receive()
await worker.stop()
await mesh.close()

async function count(job) {
  if (job.headers.hold !== undefined && job.attempt === 1) {
    await mesh.publishWait('workers.holding', 'words')
    await new Promise(() => {})
  }
  const kind = (await mesh.call('files.kind', job.payload.subarray(0, KIND_BYTES))).text
  const crc32c = (await mesh.call('checksum.crc32c', job.payload)).text
  const isText = kind === 'text'
  return {
    words: isText ? countWords(job.payload) : 0,
    headings: isText ? countHeadings(job.payload) : 0,
    crc32c,
    attempt: job.attempt,
  }
}

// By bytes, not by letters, so that text in any encoding counts the same in every language.
function countWords(payload) {
  return payload.latin1Slice().match(/[0-9A-Za-z_\x80-\xff]+/g)?.length ?? 0
}

function countHeadings(payload) {
  return payload.latin1Slice().match(/(?:^|\n)#{1,6} /g)?.length ?? 0
}
