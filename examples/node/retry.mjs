// A handler that fails now and then: events come again after a backoff, and in the end to the dead letters.
//
//   node retry.mjs DIRECTORY

import { open } from 'flowmesh'

const mesh = await open(process.argv[2])
const dead = mesh.subscribe('mail.dead')
const retry = { maxAttempts: 3, backoffMs: 5, deadLetter: 'mail.dead' }

mesh.subscribe('mail.send', { retry }, async mail => {
  console.log(`attempt ${mail.attempt} for ${mail.value.to}`)
  if (mail.value.to === 'nobody' || mail.attempt === 1) throw new Error('mailbox unavailable')
})
mesh.publish('mail.send', { to: 'ada' })
mesh.publish('mail.send', { to: 'nobody' })

const letter = await dead.receive()
console.log(`given up: ${letter.value.to}`)
await mesh.close()
