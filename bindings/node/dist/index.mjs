// The package `flowmesh`, for `import`: the very objects that `require` gives.
export { connect, connectTcp, errorKinds, FlowMeshError, Mesh, Message, open, Reply, Service, Subscription, } from './index.js';
