// Tokens per second of a full training step of GPT-2 124M: one process, two processes of half the threads, and PyTorch
// beside it where there is one. Ours and PyTorch's runs alternate, so that a machine's moods meet both.

import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { type Benchmark, capture, median, pythonWithTorch, type Row, root } from '../harness.js'
import { ceilings } from '../op/ceilings.js'
import { type TrainResult, train } from '../train.js'

const [batch, tokens, steps, rounds] = [4, 64, 6, 2]
const threads = availableParallelism()

const perSecond = (seconds: readonly number[], samples = batch): number => (samples * tokens) / median(seconds)

interface Peer {
  version: string
  seconds: number[]
}

async function torch(python: string, mode: 'f32' | 'amp' | 'bf16'): Promise<Peer> {
  const args = [mode, '--threads', threads, '--steps', steps, '--batch', batch, '--tokens', tokens].map(String)
  return JSON.parse(await capture(python, [join(root, 'bench/peers/torch_step.py'), ...args])) as Peer
}

/** Ours and PyTorch's in turn; all steps of all rounds. */
async function alternate(dtype: 'f32' | 'bf16', python: string | undefined) {
  const ours: TrainResult[] = []
  const peers: Record<string, number[]> = {}
  let version = ''
  for (let round = 0; round < rounds; round++) {
    ours.push(await train({ dtype, steps, batch, tokens }))
    for (const mode of dtype === 'f32' ? (['f32'] as const) : (['amp', 'bf16'] as const)) {
      if (!python) continue
      const peer = await torch(python, mode)
      version = peer.version
      peers[mode] = [...(peers[mode] ?? []), ...peer.seconds]
    }
  }
  return { ours, peers, version }
}

function peerRows(speed: number, dtype: string, peers: Record<string, number[]>, version: string): Row[] {
  const goal = dtype === 'f32' ? 1 : 1.3
  const names = { f32: 'f32', amp: 'bf16 by autocast, f32 weights', bf16: 'bf16 alone, no f32 weights' }
  return Object.entries(peers).flatMap(([mode, seconds]): Row[] => {
    const theirs = perSecond(seconds)
    const against = `over PyTorch ${names[mode as keyof typeof names]}`
    return [
      { name: `PyTorch, ${names[mode as keyof typeof names]}`, value: theirs, unit: 'tokens/s', note: version },
      {
        name: `${dtype} ${against}`,
        value: speed / theirs,
        unit: '×',
        ...(mode === 'bf16' ? { note: 'keeps less than ours does' } : { target: `>= ${goal}` as const }),
      },
    ]
  })
}

async function oneProcess(dtype: 'f32' | 'bf16', peak: number, python: string | undefined) {
  const { ours, peers, version } = await alternate(dtype, python)
  const seconds = ours.flatMap((run) => run.seconds)
  const speed = perSecond(seconds)
  const share = median(ours.flatMap((run) => run.javascript.map((time, i) => time / (run.seconds[i] as number))))
  const busy = Math.max(...ours.map((run) => run.loopBusy))
  const { parameters } = ours[0] as TrainResult
  const flops = (6 * parameters * batch * tokens) / median(seconds)
  const rows: Row[] = [
    {
      name: `${dtype}, one process`,
      value: speed,
      unit: 'tokens/s',
      ...(dtype === 'bf16' ? { target: '>= 350' as const } : {}),
      note: `${((100 * flops) / peak).toFixed(0)} % of the matrix product's rate`,
    },
    {
      name: `${dtype}, share of JavaScript in a step`,
      value: 100 * share,
      unit: '%',
      target: '<= 3',
      note: `event loop busy ${(100 * busy).toFixed(1)} %`,
    },
    ...peerRows(speed, dtype, peers, version),
  ]
  return { rows, speed }
}

/** Two ranks, with as many samples each as the one process has, and with half of them. */
async function twoRanks(speed: number): Promise<Row[]> {
  const rows: Row[] = []
  for (const stage of [0, 1] as const) {
    for (const each of [batch, batch / 2]) {
      const { seconds } = await train({ dtype: 'f32', steps: 4, batch: each, tokens, stage }, 2)
      const name = `f32, 2 ranks, stage ${stage}, ${each} samples each`
      const together = perSecond(seconds, 2 * each)
      rows.push({ name, value: together, unit: 'tokens/s' })
      const target = stage === 0 && each === batch ? { target: '>= 0.9' as const } : {}
      rows.push({ name: `${name}, over one process`, value: together / speed, unit: '×', ...target })
    }
  }
  return rows
}

export default {
  title: `GPT-2 124M, full step: ${batch} samples of ${tokens} tokens, AdamW, clipping 1.0, ${threads} threads in all`,
  async run() {
    const python = await pythonWithTorch()
    const peak = await ceilings()
    const f32 = await oneProcess('f32', peak.f32, python)
    const bf16 = await oneProcess('bf16', peak.bf16, python)
    return [...f32.rows, ...bf16.rows, ...(threads > 1 ? await twoRanks(f32.speed) : [])]
  },
} satisfies Benchmark
