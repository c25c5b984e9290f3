// NVTX ranges as a tool sees them: of operations with their shapes, of collectives, of a step's phases, of a pipeline's
// instructions, of the user. The tool is a small library that checks the protocol and writes down what it is told.

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { buildLibrary } from '../helpers/library.js'
import { runNode } from '../helpers/node.js'

const tool = buildLibrary('nvtx')
const space = mkdtempSync(join(tmpdir(), 'zeroshard-nvtx-'))
t.teardown(() => rmSync(space, { recursive: true }))

const root = process.cwd()
const script = join(space, 'train.mts')
const from = (path: string): string => JSON.stringify(join(root, 'lib', path))
writeFileSync(
  script,
  `import { initialize } from ${from('engine/initialize.ts')}
import { trace } from ${from('monitor/trace.ts')}
import { createModel } from ${from('nn/models/index.ts')}
import { tensor } from ${from('tensor/tensor.ts')}
const model = createModel({ model_type: 'gpt2', n_layer: 2, n_head: 2, n_embd: 16, n_positions: 8, vocab_size: 32 })
const config = JSON.parse(process.argv[2] as string)
const engine = await initialize({ model, config: { train_batch_size: 2, optimizer: { type: 'AdamW' }, ...config } })
const ids = () => tensor(Int32Array.from({ length: 8 * engine.parts.microBatchSize }, (_, i) => i % 32), [engine.parts.microBatchSize, 8])
await trace.span('my own', async () => { await engine.trainBatch(() => [ids(), ids()]) })
await engine.close()
console.log('trained')
`,
)

/** What the tool of rank 0 was told, line by line. */
function run(config: object, ranks: number, env: NodeJS.ProcessEnv): string[] {
  const record = join(space, 'record')
  rmSync(`${record}.0`, { force: true })
  const launch = ['--import', 'tsx', join(root, 'lib/cli/main.ts'), 'launch', '--nproc', `${ranks}`, script]
  const { status, stdout, stderr } = runNode([...launch, JSON.stringify(config)], {
    env: { ...process.env, NVTX_RECORD: record, ...env },
    cwd: root,
  })
  t.equal(status, 0, stderr)
  t.match(stdout, /trained/)
  return existsSync(`${record}.0`) ? readFileSync(`${record}.0`, 'utf8').trim().split('\n') : []
}

t.test('ranges of a step: everything in the domain, nested and balanced', async (t) => {
  const lines = run({}, 1, { NVTX_INJECTION64_PATH: tool })
  t.equal(lines.filter((line) => line === 'domain zeroshard').length, 1)
  t.ok(lines.includes('thread zeroshard compute'))
  t.ok(lines.includes('push zeroshard matmul f32[2,8,48] f32[2,8,16] f32[16,48] f32[48]'), 'shapes: output, inputs')
  t.ok(lines.some((line) => /^push zeroshard attention_backward f32\[/.test(line)))
  t.ok(lines.some((line) => /^push zeroshard adamw f32\[\d+\]/.test(line)))
  const count = (pattern: RegExp): number => lines.filter((line) => pattern.test(line)).length
  t.ok(count(/^push /) > 30)
  t.equal(count(/^push /), count(/^pop /))
  const starts = lines.flatMap(
    (line) => (/^start zeroshard (\d+) (.+)$/.exec(line)?.slice(1, 3) as string[] | undefined) ?? [],
  )
  for (const name of ['my own', 'forward', 'backward', 'step']) t.ok(starts.includes(name), name)
  const ended = lines.flatMap((line) => /^end zeroshard (\d+)$/.exec(line)?.[1] ?? [])
  t.strictSame(
    ended.sort(),
    starts.filter((_, i) => i % 2 === 0).sort(),
    'each range ends, by the number it began with',
  )
  t.ok(Number(ended[0]) >= 2 ** 32, 'numbers of 64 bits')
})

t.test('instructions of a pipeline and collectives', async (t) => {
  const lines = run({ mesh: { pipeline: 2 }, train_micro_batch_size_per_gpu: 1 }, 2, { NVTX_INJECTION64_PATH: tool })
  const names = lines.filter((line) => line.startsWith('start '))
  t.ok(names.some((line) => / forward of chunk 0, micro-batch 1$/.test(line)))
  t.ok(names.some((line) => / sendForward of chunk 0, micro-batch 0, peer 1$/.test(line)))
  t.ok(lines.some((line) => /^push zeroshard send \d+ bytes, group \d+ of 2 ranks$/.test(line)))
})

t.test('no tool, one that refuses, and one that is missing leave the program as it is', async (t) => {
  t.strictSame(run({}, 1, {}), [])
  t.strictSame(run({}, 1, { NVTX_INJECTION64_PATH: tool, NVTX_RECORD: '' }), [])
  t.strictSame(run({}, 1, { NVTX_INJECTION64_PATH: '/nowhere/tool.so' }), [])
})
