// The same training step by others, in the same run: PyTorch (eager and compiled; fused AdamW, SDPA), llm.c and DeepSpeed
// where the user says where they are.

import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { capture, median, type Row, root } from '../harness.js'
import { modelFlops } from '../library.js'
import type { BenchModel } from './models.js'
import { type Ceilings, peakOf, type SuiteOptions } from './suite.js'

interface Peer {
  name: string
  tokensPerSecond: number
  ranks: number
  note: string
}

const scripts = join(root, 'bench/peers')

/** What torch_device.py and deepspeed_step.py print last. */
interface Printed {
  version: string
  seconds: number[]
  tokens: number
  loss: number
  peak?: number
}

const lastLine = (text: string): string => text.trim().split('\n').at(-1) as string

function peerOf(name: string, text: string, ranks: number): Peer {
  const { version, seconds, tokens, loss, peak } = JSON.parse(lastLine(text)) as Printed
  const memory = peak ? `; peak ${(peak / 2 ** 30).toPrecision(3)} GiB` : ''
  return {
    name,
    ranks,
    tokensPerSecond: tokens / median(seconds),
    note: `${version}, loss ${loss.toFixed(3)}${memory}`,
  }
}

const stepArguments = (model: BenchModel, micro: number, { device, dry }: SuiteOptions): string[] => {
  const [steps, warmup] = dry ? ['1', '1'] : ['8', '3']
  return [
    '--device',
    device,
    '--micro',
    String(micro),
    '--steps',
    steps,
    '--warmup',
    warmup,
    '--model',
    JSON.stringify(model),
  ]
}

async function torch(
  mode: 'eager' | 'compiled',
  model: BenchModel,
  micro: number,
  options: SuiteOptions,
): Promise<Peer> {
  const args = [join(scripts, 'torch_device.py'), 'step', '--mode', mode, ...stepArguments(model, micro, options)]
  return peerOf(`PyTorch ${mode}`, await capture(options.python as string, args), 1)
}

async function deepspeed(stage: number, model: BenchModel, micro: number, options: SuiteOptions): Promise<Peer> {
  const { ranks } = options
  const launch = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', String(ranks)]
  const args = [
    ...launch,
    join(scripts, 'deepspeed_step.py'),
    '--stage',
    String(stage),
    ...stepArguments(model, micro, options),
  ]
  return peerOf(`DeepSpeed stage ${stage}`, await capture(options.deepspeed as string, args), ranks)
}

/** llm.c reads tokens from files: a header of 256 words, then 16 bits a token. */
export function llmcTokens(path: string, count: number, vocabulary: number): void {
  const header = new Int32Array(256)
  header.set([20240520, 1, count])
  const tokens = Uint16Array.from({ length: count }, () => Math.random() * vocabulary)
  writeFileSync(path, Buffer.concat([Buffer.from(header.buffer), Buffer.from(tokens.buffer)]))
}

/** "step 5/11 | loss 10.9 | … | 120.33 ms | 45.1% bf16 MFU | 436000 tok/s": the median of the steps after the third. */
export function llmcSpeed(text: string): number {
  const times = [...text.matchAll(/^step +(\d+)\/\d+.*?\| *([\d.]+) ms .*?([\d.]+) tok\/s/gm)]
  const speeds = times.filter(([, step]) => Number(step) > 3).map(([, , , speed]) => Number(speed))
  if (speeds.length === 0) throw new Error(`llm.c printed no step: ${lastLine(text)}`)
  return median(speeds)
}

async function llmc(model: BenchModel, micro: number, { llmc: folder, ranks }: SuiteOptions): Promise<Peer> {
  const { layers, sequence, vocabulary } = model.sizes
  const space = mkdtempSync(join(tmpdir(), 'zeroshard-llmc-'))
  try {
    for (const name of ['train', 'val'])
      llmcTokens(join(space, `${name}_0.bin`), 4 * ranks * micro * sequence + 1, vocabulary)
    const files = ['-i', join(space, 'train_*.bin'), '-j', join(space, 'val_*.bin'), '-e', `d${layers}`]
    const sizes = ['-b', micro, '-t', sequence, '-d', ranks * micro * sequence, '-x', 11].map(String)
    const quiet = ['-v', '0', '-s', '0', '-h', '0', '-z', ranks > 1 ? '1' : '0']
    const program = join(folder as string, 'train_gpt2cu')
    const mpi = ranks > 1 ? ['mpirun', '--allow-run-as-root', '-np', String(ranks)] : []
    const [command, ...args] = [...mpi, program, ...files, ...sizes, ...quiet] as [string, ...string[]]
    const note = `${ranks} ranks, micro-batch ${micro}`
    return { name: 'llm.c', ranks, tokensPerSecond: llmcSpeed(await capture(command, args)), note }
  } finally {
    rmSync(space, { recursive: true, force: true })
  }
}

export function peerRow(model: BenchModel, peer: Peer, ceilings: Ceilings): Row {
  const flops = modelFlops(model.config, model.sizes.sequence)?.training ?? 0
  const achieved = (flops * peer.tokensPerSecond) / peer.ranks
  const where = peer.ranks > 1 ? `, ${peer.ranks} ranks` : ''
  return {
    name: `${model.name}, ${peer.name}${where}`,
    value: peer.tokensPerSecond,
    unit: 'tokens/s',
    share: achieved / ceilings.bf16,
    mfu: achieved / peakOf(ceilings).peak,
    note: peer.note,
  }
}

/** llm.c has GPT-2 alone, of the depths that its descriptors know. */
const llmcKnows = ({ name, sizes }: BenchModel): boolean =>
  name.startsWith('GPT-2') && [12, 24, 36, 48].includes(sizes.layers)

/** Rows of all that are there. One that fails says why, and takes none of the others along. */
export async function peerRows(model: BenchModel, micro: number, options: SuiteOptions): Promise<Row[]> {
  const runs: [string, () => Promise<Peer>][] = []
  if (options.python)
    for (const mode of ['eager', 'compiled'] as const)
      runs.push([`PyTorch ${mode}`, () => torch(mode, model, micro, options)])
  if (options.llmc && llmcKnows(model)) runs.push(['llm.c', () => llmc(model, micro, options)])
  if (options.deepspeed)
    for (const stage of [1, 2, 3])
      runs.push([`DeepSpeed stage ${stage}`, () => deepspeed(stage, model, micro, options)])
  const rows: Row[] = []
  for (const [name, run] of runs) {
    try {
      rows.push(peerRow(model, await run(), options.ceilings as Ceilings))
    } catch (error) {
      rows.push({ name: `${model.name}, ${name}`, value: Number.NaN, unit: 'tokens/s', note: (error as Error).message })
    }
  }
  return rows
}

/** @throws where a path that the user gave has no such program. */
export function checkPeers({ llmc, deepspeed }: Pick<SuiteOptions, 'llmc' | 'deepspeed'>): void {
  if (llmc && !existsSync(join(llmc, 'train_gpt2cu')))
    throw new Error(`--llmc ${llmc}: there is no train_gpt2cu; build it there with \`make train_gpt2cu\``)
  if (deepspeed && !existsSync(deepspeed))
    throw new Error(`--deepspeed ${deepspeed}: there is no such file; give the path of a Python that has DeepSpeed`)
}
