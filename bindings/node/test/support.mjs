// What several tests need: a mesh that goes away with its test, and another process.

import { fork, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { connect, open } from 'flowmesh'

/** No wait of a test is longer, however slow the machine. */
export const WATCHDOG_MS = 10_000

/** A new empty directory. */
export function directory(t) {
  const made = mkdtempSync(join(tmpdir(), 'fmnode-'))
  t.after(() => rmSync(made, { recursive: true, force: true }))
  return made
}

/** A host of a new directory. */
export async function host(t, options) {
  const mesh = await open(directory(t), { name: 'host', ...options })
  t.after(() => mesh.close())
  return mesh
}

/** A client of `mesh`. */
export async function client(t, mesh, options) {
  const connected = await connect(mesh.directory, { name: 'client', ...options })
  t.after(() => connected.close())
  return connected
}

/** A host and a client of it. */
export async function pair(t, options) {
  const mesh = await host(t, options)
  return [mesh, await client(t, mesh)]
}

/** Runs test/programs/`name` as a process with an IPC channel; it is killed with its test. */
export function program(t, name, ...args) {
  const file = fileURLToPath(new URL(`programs/${name}`, import.meta.url))
  const child = fork(file, args, { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] })
  child.output = ''
  child.stdout.setEncoding('utf8').on('data', text => (child.output += text))
  t.after(() => child.kill('SIGKILL'))
  return child
}

/** The next message of a child process. */
export async function message(child) {
  const [value] = await once(child, 'message', { signal: AbortSignal.timeout(WATCHDOG_MS) })
  return value
}

/**
 * Runs `run` while the disk is full, for this process: it may write no file beyond 4 KiB, where the ledger is by then.
 * The kernel refuses such writes like those of a full disk, to any user and on any file system. Without `prlimit`, which
 * sets the limit, the test says that it was not run.
 */
export async function withFullDisk(t, run) {
  const [, before] = readFileSync('/proc/self/limits', 'utf8').match(/^Max file size +(\S+)/m)
  const limit = bytes => spawnSync('prlimit', ['--pid', String(process.pid), `--fsize=${bytes}:`], { encoding: 'utf8' })
  const ignore = () => {}
  process.on('SIGXFSZ', ignore) // which comes with the refusal, and would end the process
  const { error, status, stderr } = limit(4096)
  if (error !== undefined || status !== 0) {
    process.off('SIGXFSZ', ignore)
    console.error(`NOT RUN: a full disk needs prlimit: ${error ?? stderr}`)
    return t.skip('prlimit is not there')
  }
  try {
    await run()
  } finally {
    limit(before)
    process.off('SIGXFSZ', ignore)
  }
  return undefined
}

/** How a child process ended; fails when it does not. */
export async function ended(child) {
  if (child.exitCode !== null || child.signalCode !== null) return { code: child.exitCode, signal: child.signalCode }
  const [code, signal] = await once(child, 'exit', { signal: AbortSignal.timeout(WATCHDOG_MS) })
  return { code, signal }
}

/** Waits until `condition` gives something true. */
export async function until(condition) {
  const deadline = Date.now() + WATCHDOG_MS
  for (;;) {
    const found = await condition()
    if (found) return found
    if (Date.now() > deadline) throw new Error(`never became true: ${condition}`)
    await new Promise(resolve => setTimeout(resolve, 2))
  }
}
