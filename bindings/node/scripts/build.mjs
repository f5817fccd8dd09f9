// Builds the package in place: the native addon with cargo, the TypeScript layer with tsc.
//
//   node scripts/build.mjs [--if-stale] [--debug]
//
// With --if-stale, what is newer than its sources is left alone: that is how `npm install` calls it, so a folder with
// a prebuilt addon needs no cargo. --debug builds the addon without optimization.

import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const home = dirname(dirname(fileURLToPath(import.meta.url)))
const root = join(home, '..', '..')
const onlyStale = process.argv.includes('--if-stale')
const debug = process.argv.includes('--debug')

const addon = join(home, `flowmesh.${process.platform}-${process.arch}.node`)
const rust = ['native', 'Cargo.toml', 'build.rs', '../../core/src', '../../core/Cargo.toml', '../../Cargo.toml', '../../Cargo.lock']
if (!onlyStale || isStale(addon, rust)) buildAddon()

const compiled = join(home, 'dist', 'index.mjs')
if (!onlyStale || isStale(compiled, ['src', 'tsconfig.json'])) buildTypeScript()

function buildAddon() {
  const profile = debug ? [] : ['--release']
  const arguments_ = ['build', '-p', 'flowmesh-node', '--locked', '--message-format=json-render-diagnostics', ...profile]
  const built = run('cargo', arguments_, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] })
  const library = built
    .split('\n')
    .filter(line => line.startsWith('{'))
    .map(line => JSON.parse(line))
    .filter(message => message.reason === 'compiler-artifact' && message.target.name === 'flowmesh_node')
    .flatMap(message => message.filenames)
    .find(name => /\.(so|dylib|dll)$/.test(name))
  if (library === undefined) throw new Error('cargo built no library')
  // A rename, so that a process that runs the old one keeps it whole.
  const fresh = `${addon}.${process.pid}`
  copyFileSync(library, fresh)
  renameSync(fresh, addon)
}

function buildTypeScript() {
  // npm links a folder without installing what its development needs, unless the project is around the folder.
  const compiler = findCompiler() ?? join(home, 'node_modules', 'typescript', 'bin', 'tsc')
  if (!existsSync(compiler)) run(npm(), ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: home, env: ownEnvironment() })
  rmSync(join(home, 'dist'), { recursive: true, force: true })
  run(process.execPath, [compiler, '-p', home], { cwd: home })
}

function findCompiler() {
  try {
    const { resolve } = createRequire(join(home, 'package.json'))
    resolve('@types/node/package.json')
    return join(dirname(resolve('typescript/package.json')), 'bin', 'tsc')
  } catch {
    return undefined
  }
}

/** The environment without the settings of the npm that called us: they belong to another folder. */
function ownEnvironment() {
  const foreign = /^npm_config_(global|prefix|local_prefix|location|workspace|workspaces|omit|include|save.*|package_lock.*|dry_run)$/i
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !foreign.test(name)))
}

function npm() {
  return process.platform === 'win32' ? 'npm.cmd' : 'npm'
}

function run(command, arguments_, options) {
  const result = spawnSync(command, arguments_, { stdio: ['ignore', 'inherit', 'inherit'], encoding: 'utf8', maxBuffer: 2 ** 28, ...options })
  if (result.error?.code === 'ENOENT') {
    throw new Error(`${command} is needed to build the package and was not found${command === 'cargo' ? ': install Rust' : ''}`)
  }
  if (result.error) throw result.error
  if (result.status !== 0) throw new Error(`${command} ${arguments_.join(' ')} ended with ${result.signal ?? result.status}`)
  return result.stdout ?? ''
}

/** Whether `made` is missing or older than one of its sources. A package without sources has nothing newer. */
function isStale(made, sources) {
  if (!existsSync(made)) return true
  const time = statSync(made).mtimeMs
  return sources.some(source => newest(join(home, source)) > time)
}

function newest(path) {
  if (!existsSync(path)) return 0
  const found = statSync(path)
  if (!found.isDirectory()) return found.mtimeMs
  return Math.max(0, ...readdirSync(path).map(name => newest(join(path, name))))
}
