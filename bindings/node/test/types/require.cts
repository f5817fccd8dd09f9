// The same types reach a CommonJS program.
import flowmesh = require('flowmesh')

export async function use(): Promise<flowmesh.Message> {
  const mesh: flowmesh.Mesh = await flowmesh.open('dir')
  return mesh.call('a', 'x').catch((error: flowmesh.FlowMeshError) => Promise.reject(error.code))
}
