// Installs the package from its folder the way a user would, from a copy without anything built, and uses it.
//
//   node scripts/test-install.mjs
//
// The copy shares this checkout's cargo target folder, so only the first run compiles everything.

import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))))
const scratch = mkdtempSync(join(tmpdir(), 'fminstall-'))
try {
  const checkout = join(scratch, 'checkout')
  const unbuilt = source => !/\/(target|node_modules|dist|\.git|\.venv)$|\.(node|so)$/.test(source)
  cpSync(root, checkout, { recursive: true, filter: unbuilt })
  const project = join(scratch, 'project')
  mkdirSync(project)
  writeFileSync(join(project, 'package.json'), '{ "name": "project", "version": "1.0.0", "private": true }\n')
  const env = { ...process.env, CARGO_TARGET_DIR: process.env.CARGO_TARGET_DIR ?? join(root, 'target') }
  run('npm', ['install', join(checkout, 'bindings', 'node')], { cwd: project, env })
  const use = `
    const mesh = await open(process.argv[2])
    mesh.serve('hello', request => 'hello ' + request.text)
    console.log((await mesh.call('hello', 'world')).text)
    await mesh.close()`
  writeFileSync(join(project, 'use.mjs'), `import { open } from 'flowmesh'\n${use}\n`)
  writeFileSync(join(project, 'use.cjs'), `const { open } = require('flowmesh')\n;(async () => {${use}\n})()\n`)
  for (const program of ['use.mjs', 'use.cjs']) {
    const said = run(process.execPath, [program, join(scratch, 'data')], { cwd: project, stdio: ['ignore', 'pipe', 'inherit'] })
    if (said !== 'hello world\n') throw new Error(`${program} said ${JSON.stringify(said)}`)
  }
  console.log('ok: installed from its folder, and used by import and require')
} finally {
  rmSync(scratch, { recursive: true, force: true })
}

function run(command, arguments_, options) {
  const result = spawnSync(command, arguments_, { stdio: ['ignore', 'inherit', 'inherit'], encoding: 'utf8', ...options })
  if (result.error) throw result.error
  if (result.status !== 0) throw new Error(`${command} ended with ${result.signal ?? result.status}`)
  return result.stdout
}
