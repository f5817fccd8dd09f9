export type * from './index.js';
export { connect, connectTcp, errorKinds, FlowMeshError, Mesh, Message, open, Reply, Service, Subscription, } from './index.js';
