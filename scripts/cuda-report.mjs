// The compiler's report of every CUDA kernel (registers, spills, stack, static shared memory) as a table in
// docs/gpu-status.md. Needs nvcc, no GPU. `--logs FOLDER` keeps ptxas's output per file and takes what is newer than
// its source from there; `--arch 90a` by default.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { root } from './run.mjs'

const { values } = parseArgs({ options: { logs: { type: 'string' }, arch: { type: 'string', default: '90a' } } })
const logs = values.logs ?? mkdtempSync(join(tmpdir(), 'cuda-report-'))
mkdirSync(logs, { recursive: true })
const folder = join(root, 'native/backend/cuda')

/** What ptxas says of one source. */
function report(source) {
  const log = join(logs, `${basename(source, '.cu')}.ptxas`)
  if (existsSync(log) && statSync(log).mtimeMs > statSync(source).mtimeMs) return readFileSync(log, 'utf8')
  const code = `arch=compute_${values.arch},code=sm_${values.arch}`
  const { status, stderr, error } = spawnSync(
    'nvcc',
    ['-std=c++20', '-O3', '-cubin', '-gencode', code, '-Xptxas', '-v', '-o', '/dev/null', source],
    { encoding: 'utf8' },
  )
  if (status !== 0) throw error ?? new Error(`nvcc failed on ${source}:\n${stderr}`)
  writeFileSync(log, stderr)
  return stderr
}

/** A kernel's name without types that only multiply it: the body of each_pack, the head's size of attention. */
function short(full) {
  const plain = full
    .replaceAll('(anonymous namespace)::', '')
    .replaceAll('zs::cuda::', '')
    .replace(/^void /, '')
  const pack = plain.match(/^each_pack<\(?(?:int\))?\d+, (\w+)(?:<(\w+))?/)
  if (pack) return pack[1] === 'Update' ? pack[2] : pack[1]
  const attention = plain.match(/^\w+_kernel<(Forward|ForQueries|ForKeys)<\w+, \(?(?:int\))?(\d+)/)
  if (attention) return `${attention[1]}, heads to ${attention[2]}`
  return plain.match(/^\w+/)[0]
}

/** The names as c++filt tells them, in one call. */
function demangled(names) {
  return spawnSync('c++filt', { input: names.join('\n'), encoding: 'utf8' })
    .stdout.trim()
    .split('\n')
    .map(short)
}

function rowsOf(source) {
  const kernels = new Map()
  const pattern =
    /Compiling entry function '(\w+)'[\s\S]*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads[\s\S]*?Used (\d+) registers[^\n]*/g
  const found = [...report(source).matchAll(pattern)]
  const names = demangled(found.map(([, mangled]) => mangled))
  for (const [i, [text, , stack, stores, loads, registers]] of found.entries()) {
    const name = names[i]
    const shared = Number(text.match(/(\d+) bytes smem/)?.[1] ?? 0)
    const known = kernels.get(name) ?? { variants: 0, least: 255, most: 0, spilled: 0, stack: 0, shared: 0 }
    kernels.set(name, {
      variants: known.variants + 1,
      least: Math.min(known.least, Number(registers)),
      most: Math.max(known.most, Number(registers)),
      spilled: Math.max(known.spilled, Number(stores) + Number(loads)),
      stack: Math.max(known.stack, Number(stack)),
      shared: Math.max(known.shared, shared),
    })
  }
  return [...kernels].map(([name, k]) => {
    const registers = k.least === k.most ? k.most : `${k.least} to ${k.most}`
    return `| ${basename(source)} | ${name} | ${k.variants} | ${registers} | ${k.spilled} | ${k.stack} | ${k.shared} |`
  })
}

const sources = readdirSync(folder)
  .filter((name) => name.endsWith('.cu'))
  .sort()
const table = [
  `Of nvcc ${spawnSync('nvcc', ['--version'], { encoding: 'utf8' }).stdout.match(/V([\d.]+)/)[1]} for sm_${values.arch}, by`,
  '`node scripts/cuda-report.mjs`. Variants: element types, aligned or not, sizes. Spills are bytes stored and loaded by the',
  "worst variant; dynamic shared memory (attention's) is not the compiler's to tell.",
  '',
  '| file | kernel | variants | registers | spills | stack | shared |',
  '|---|---|---|---|---|---|---|',
  ...sources.flatMap((name) => rowsOf(join(folder, name))),
].join('\n')

const page = join(root, 'docs/gpu-status.md')
const heading = "## Compiler's report"
const old = readFileSync(page, 'utf8')
const [before, after = ''] = old.includes(heading) ? old.split(heading) : [`${old.trimEnd()}\n\n`, '']
const next = after.indexOf('\n## ')
writeFileSync(page, `${before}${heading}\n\n${table}\n${next < 0 ? '' : after.slice(next)}`)
