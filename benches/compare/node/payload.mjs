// What the Node sides of the comparison send: 64 bytes, written and read word by word.

export const CALLS = 10_000;
export const EVENTS = 100_000;
// Sent before the event loop gets a turn to write them out.
export const BURST = 1_000;

export function payload(seed) {
  const message = Buffer.allocUnsafe(64);
  for (let offset = 0; offset < 64; offset += 4) message.writeUInt32LE(seed, offset);
  return message;
}

export function check(message, seed) {
  const bytes = Buffer.from(message.buffer, message.byteOffset, message.byteLength);
  for (let offset = 0; offset < 64; offset += 4) {
    if (bytes.readUInt32LE(offset) !== seed) throw new Error('a payload arrived damaged or out of order');
  }
}

export function seedOf(message) {
  return Buffer.from(message.buffer, message.byteOffset, 4).readUInt32LE(0);
}
