// `npm run bench -- --dry`: the cases that an 8-GPU host would run, small, on CPU ranks; the peers, with programs that stand
// in for them; what the command line refuses.

import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { busFactor, kinds } from '../../bench/device/collectives.js'
import { models } from '../../bench/device/models.js'
import { checkPeers, llmcSpeed, peerRows } from '../../bench/device/peers.js'
import type { SuiteOptions } from '../../bench/device/suite.js'
import { binding } from '../../lib/binding/native.js'
import { runNode } from '../helpers/node.js'

const space = mkdtempSync(join(tmpdir(), 'zeroshard-bench-'))
t.teardown(() => rmSync(space, { recursive: true }))

function bench(...args: string[]) {
  const command = ['--import', 'tsx', 'bench/run.ts', ...args]
  return runNode(command, { env: { ...process.env, ZEROSHARD_BENCH_PYTHON: 'false' } })
}

t.test('misuse: the command line says what it takes', async (t) => {
  const cases: [string[], RegExp][] = [
    [['--device', 'tpu'], /--device is 'tpu'; it must be cpu or cuda/],
    [['--dry', '--device', 'cuda'], /--dry runs on CPU ranks/],
    [['--dry', '--nproc', '0'], /--nproc is '0'; it must be an integer from 1/],
    [['--dry', '--layouts', 'some'], /--layouts is 'some'; it must be simple .* or all/],
    [['--device', 'cpu', '--nproc', '4'], /--nproc is for --dry/],
    [['--dry', 'kernel'], /no benchmark 'kernel'; there are device, ceilings, kernels, collectives, steps, memory/],
    [['--dry', '--llmc', '/nowhere'], /there is no train_gpt2cu/],
    [['--dyr'], /'--dyr'/],
  ]
  for (const [args, message] of cases) {
    const { status, stderr } = bench(...args)
    t.equal(status, 2, args.join(' '))
    t.match(stderr, message)
  }
})

const { devices } = binding().native.devices()
t.test('no device: the reason, and the status that says so', { skip: devices.length > 0 }, async (t) => {
  const { status, stderr } = bench('--device', 'cuda')
  t.equal(status, 77)
  t.match(stderr, /^no device: .+/)
})

t.test('a spread of all cases on 4 CPU ranks', { timeout: 240_000 }, async (t) => {
  const { status, stdout, stderr } = bench('--dry', '--nproc', '4', '--every', '18', '--out', space)
  t.equal(status, 0, stderr)
  const written = readdirSync(space)
  t.ok(written.some((name) => name.endsWith('.md')))
  const json = written.find((name) => name.endsWith('.json')) as string
  const { command, machine, parts } = JSON.parse(readFileSync(join(space, json), 'utf8'))
  t.equal(command, `npm run bench -- --dry --nproc 4 --every 18 --out ${space}`)
  t.match(machine, { commit: /^[0-9a-f]{10}/, date: /^\d{4}-\d\d-\d\d$/, gpus: [], cores: Number })
  const titles = parts.map(({ title }: { title: string }) => title.split(/[:,]/)[0])
  t.strictSame(titles, ['Ceilings', 'Kernels', 'Collectives', 'Training steps', 'Peak memory against the formula'])
  type Row = { name: string; value: number; share?: number; mfu?: number; note?: string }
  const rowsOf = (title: string): Row[] => parts.find((part: { title: string }) => part.title.startsWith(title)).rows
  for (const { rows } of parts)
    for (const row of rows) t.ok(Number.isFinite(row.value) && row.value >= 0, `${row.name}: ${row.value}`)
  for (const row of rowsOf('Kernels'))
    t.ok((row.share as number) > 0 && (row.share as number) < 50, `${row.name}: ${row.share}`)
  const collectives = rowsOf('Collectives').map(({ name }) => name)
  for (const ranks of [2, 4]) t.ok(collectives.some((name) => name.endsWith(`${ranks} ranks`)))
  const steps = rowsOf('Training steps')
  for (const model of ['GPT-2 124M', 'GPT-2 1.5B', 'Llama 1B', 'Llama 8B'])
    t.ok(steps.filter(({ name }) => name.startsWith(model)).length >= 2, `${model} on one rank and on several`)
  for (const { name, mfu, note } of steps) {
    t.ok((mfu as number) > 0 && (mfu as number) < 1, `${name}: MFU ${mfu}`)
    t.match(note, /^loss \d.*waits for JavaScript [\d.]+ %.*JavaScript at most [\d.]+ ms ahead/)
  }
  for (const axis of ['pp', 'tp', 'dp'])
    t.ok(
      steps.some(({ name }) => name.includes(`${axis} `)),
      axis,
    )
  t.match(stdout, /all targets met/)
})

t.test('busbw is what nccl-tests calls it', async (t) => {
  t.strictSame(
    kinds.map((kind) => busFactor(kind, 8)),
    [1.75, 0.875, 0.875, 0.875, 1, 1],
  )
})

const [gpt2] = models(true) as [ReturnType<typeof models>[0]]
const options: SuiteOptions = {
  device: 'cpu',
  dry: true,
  ranks: 1,
  every: 1,
  allLayouts: false,
  models: '',
  ceilings: { copy: 1e10, bf16: 1e12, f32: 1e12, name: '', link: 0 },
}

/** A program of that name in a folder of its own. */
function program(name: string, text: string): string {
  const folder = join(space, `${name}-folder`)
  mkdirSync(folder)
  writeFileSync(join(folder, name), text)
  chmodSync(join(folder, name), 0o755)
  return folder
}

t.test('llm.c: its files, its arguments, what it prints', async (t) => {
  const folder = program(
    'train_gpt2cu',
    `#!${process.execPath}
const { readFileSync } = require('node:fs')
const at = (flag) => process.argv[process.argv.indexOf(flag) + 1]
const data = readFileSync(at('-i').replace('*', '0'))
const [magic, version, count] = new Int32Array(data.buffer, data.byteOffset, 3)
if (magic !== 20240520 || version !== 1 || data.length !== 1024 + 2 * count) process.exit(3)
if (count <= at('-b') * at('-t') || at('-e') !== 'd12' || at('-d') !== String(at('-b') * at('-t'))) process.exit(4)
for (let i = 1; i <= 11; i++)
  console.log(\`step \${String(i).padStart(4)}/11 | loss 10.9 (+nanz)| norm 15.8 (+nanz)| lr 1e-4 | \${i < 4 ? 900 : 120}.33 ms | 45.1% bf16 MFU | \${i < 4 ? 1 : 4000 + i} tok/s\`)
`,
  )
  checkPeers({ llmc: folder })
  const model = { ...gpt2, name: 'GPT-2 124M', sizes: { ...gpt2.sizes, layers: 12 } }
  const [row] = await peerRows(model, 2, { ...options, llmc: folder })
  t.match(row, { name: 'GPT-2 124M, llm.c', value: 4007.5, unit: 'tokens/s' })
  t.ok((row?.mfu as number) > 0)
  t.throws(() => llmcSpeed('Segmentation fault'), /no step: Segmentation fault/)
})

t.test('a peer that fails says why and takes no other along', async (t) => {
  const folder = program('train_gpt2cu2', '')
  writeFileSync(join(folder, 'train_gpt2cu'), '#!/bin/sh\nexit 9\n')
  chmodSync(join(folder, 'train_gpt2cu'), 0o755)
  const python = join(
    program(
      'python',
      `#!/bin/sh\necho noise; echo '{"version":"2.x","seconds":[0.5,0.25,1],"tokens":64,"loss":5.5,"peak":1073741824}'\n`,
    ),
    'python',
  )
  const model = { ...gpt2, name: 'GPT-2 124M', sizes: { ...gpt2.sizes, layers: 12 } }
  const rows = await peerRows(model, 2, { ...options, llmc: folder, python, deepspeed: python })
  t.strictSame(
    rows.map(({ name, value }) => [name.slice(12), value]),
    [
      ['PyTorch eager', 128],
      ['PyTorch compiled', 128],
      ['llm.c', Number.NaN],
      ['DeepSpeed stage 1', 128],
      ['DeepSpeed stage 2', 128],
      ['DeepSpeed stage 3', 128],
    ],
  )
  t.match(rows[2]?.note, /train_gpt2cu ended with status 9/)
  t.equal(rows[0]?.note, '2.x, loss 5.500; peak 1.00 GiB')
})
