// The package `flowmesh`, for `import`: the very objects that `require` gives.

export type * from './index.js'
export {
  connect,
  connectTcp,
  Content,
  errorKinds,
  FlowMeshError,
  inspect,
  Job,
  Mesh,
  Message,
  open,
  Queue,
  Reject,
  Reply,
  Service,
  Snooze,
  Subscription,
  Worker,
} from './index.js'
