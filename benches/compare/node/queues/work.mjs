// What the Node sides of the table of queues do.

export const PAYLOAD = 'x'.repeat(128);
const QUICK = 'FLOWMESH_COMPARE_QUICK' in process.env;

// Less in a quick run, after a twentieth of it to warm up.
export function counts(full) {
  const count = QUICK ? full / 10 : full;
  return [count / 20, count];
}

export function print(count, startedAt) {
  const perSecond = count / (Number(process.hrtime.bigint() - startedAt) / 1e9);
  console.log(`figure ${perSecond} ${perSecond}`);
}
