// Events between two processes: one waits for orders, the other publishes them.
//
//   node events.mjs DIRECTORY host         opens the mesh, prints every order, ends after `orders.end`
//   node events.mjs DIRECTORY publish N    connects and publishes N orders

import { connect, open } from 'flowmesh'

const [directory, role, count] = process.argv.slice(2)

if (role === 'host') {
  const mesh = await open(directory, { name: 'orders' })
  const orders = mesh.subscribe('orders.*', { capacity: 10_000 })
  console.log('waiting for orders')
  for await (const order of orders) {
    if (order.gap > 0) console.log(`${order.gap} orders were lost: this process is too slow`)
    if (order.subject === 'orders.end') break
    console.log(`${order.subject}: order ${order.value.order} of ${order.value.customer}`)
  }
  await mesh.close()
} else {
  const mesh = await connect(directory, { name: 'shop' })
  const orders = Array.from({ length: Number(count) }, (_, n) => ({ order: n + 1, customer: 'Ada' }))
  await mesh.publishMany('orders.created', orders)
  await mesh.publishWait('orders.end', '')
  await mesh.close()
}
