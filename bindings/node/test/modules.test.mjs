import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import * as imported from 'flowmesh'

const require = createRequire(import.meta.url)

test('import and require give the same objects', () => {
  const required = require('flowmesh')
  assert.deepEqual(Object.keys(imported).sort(), Object.keys(required).sort())
  for (const [name, value] of Object.entries(imported)) assert.equal(value, required[name], name)
})

test('a CommonJS program', () => {
  const program = `
    const { open, FlowMeshError } = require('flowmesh')
    const { mkdtempSync, rmSync } = require('node:fs')
    const dir = mkdtempSync(require('node:os').tmpdir() + '/fmnode-')
    open(dir).then(async mesh => {
      mesh.serve('a', request => request.text + '!')
      console.log((await mesh.call('a', 'x')).text)
      await mesh.call('b', 'x').catch(error => console.log(error instanceof FlowMeshError, error.code))
      await mesh.close()
      rmSync(dir, { recursive: true })
    })`
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=commonjs', '-e', program], {
    cwd: fileURLToPath(new URL('..', import.meta.url)),
    encoding: 'utf8',
  })
  assert.deepEqual([stdout, stderr, status], ['x!\ntrue NO_SERVICE\n', '', 0])
})

const strict = ['--ignoreConfig', '--strict', '--exactOptionalPropertyTypes', '--noUncheckedIndexedAccess', '--noEmit', '--skipLibCheck', 'false']
for (const [name, files, options] of [
  ['with @types/node', ['strict.ts', 'require.cts'], ['--types', 'node', '--target', 'es2022', '--lib', 'es2023,esnext.disposable']],
  ['with the DOM library', ['strict.ts', 'require.cts'], ['--types', '', '--target', 'es2022', '--lib', 'es2023,esnext.disposable,dom']],
  ['with neither', ['bare.ts'], ['--types', '', '--target', 'es2020', '--lib', 'es2020']],
]) {
  test(`the types are clean under strict ${name}`, () => {
    const compiler = require.resolve('typescript/package.json').replace('package.json', 'bin/tsc')
    const arguments_ = [compiler, ...strict, '--module', 'nodenext', ...options, ...files]
    const cwd = fileURLToPath(new URL('types', import.meta.url))
    const { stdout, status } = spawnSync(process.execPath, arguments_, { cwd, encoding: 'utf8' })
    assert.deepEqual([stdout, status], ['', 0])
  })
}
