// Products of a cut MLP (column, then row) on two ranks of one thread, in 1 to 8 pieces whose communication runs beside
// the next one (tensor_parallel.tp_overlap_comm); all settings take turns in one run. Communication needs a core of its
// own to be hidden: where the ranks' compute threads take all, as on 2 cores, it only shares theirs.

import { type Benchmark, inChild, median, type Row, type Work } from '../harness.js'
import {
  backwardFrom,
  binding,
  empty,
  joinWorld,
  leaveWorld,
  nn,
  noGrad,
  ops,
  parallel,
  tensor,
  tidy,
} from '../library.js'

interface Shape {
  tokens: number
  width: number
  sequence: boolean
}
/** Milliseconds, by number of pieces; of the forward's communication alone, which is all that pieces can hide. */
interface Result {
  times: { pieces: number; forward: number; both: number }[]
  alone: number
}

const samples = 4
const pieces = [1, 2, 4, 8]
const repeats = 11

class Mlp extends nn.Module {
  readonly up: InstanceType<typeof parallel.ColumnParallelLinear>
  readonly down: InstanceType<typeof parallel.RowParallelLinear>

  constructor(width: number, region: InstanceType<typeof parallel.Region>) {
    super()
    const init = nn.normal(0.02)
    const up = new nn.Linear(width, 4 * width, { init, activation: 'geluTanh' })
    this.up = new parallel.ColumnParallelLinear(up, region)
    this.down = new parallel.RowParallelLinear(new nn.Linear(4 * width, width, { init }), region)
  }

  forward(x: ReturnType<typeof tensor>): ReturnType<typeof tensor> {
    return this.down.forward(this.up.forward(x))
  }
}

export const work: Work<Shape, Result> = async ({ tokens, width, sequence }) => {
  const world = await joinWorld()
  const { group } = world
  const part = tokens / samples / (sequence ? group.size : 1)
  const values = Float32Array.from({ length: samples * part * width }, (_, i) => Math.sin(i))
  const x = tensor(values, [samples, part, width], { shared: true })
  x.requiresGrad = true
  const models = pieces.map((chunks) =>
    new Mlp(width, new parallel.Region(group, { sequence: sequence ? () => true : undefined, chunks })).materialize(),
  )
  const timed = async (run: () => void): Promise<number> => {
    await group.barrier()
    const start = performance.now()
    tidy(run)
    await binding().native.synchronize(-1)
    return performance.now() - start
  }
  const times = pieces.map(() => ({ forward: [] as number[], both: [] as number[] }))
  const sums = empty([tokens, width], { shared: true, zero: true })
  const alone: number[] = []
  for (let repeat = -2; repeat < repeats; repeat++) {
    alone.push(await timed(() => void group.allReduce(sums)))
    for (const [index, model] of models.entries()) {
      const forward = await timed(() => noGrad(() => void model.forward(x)))
      const both = await timed(() => backwardFrom(ops.sum(model.forward(x))))
      if (repeat < 0) continue
      times[index]?.forward.push(forward)
      times[index]?.both.push(both)
    }
  }
  await leaveWorld(world)
  return {
    times: times.map(({ forward, both }, i) => ({
      pieces: pieces[i] as number,
      forward: median(forward),
      both: median(both),
    })),
    alone: median(alone),
  }
}

function rowsOf({ tokens, width, sequence }: Shape, { times, alone }: Result): Row[] {
  const [whole] = times as [Result['times'][number]]
  return times.map(({ pieces: count, forward, both }) => {
    const change = `${(whole.forward / forward).toFixed(2)}x and ${(whole.both / both).toFixed(2)}x`
    return {
      name: `${tokens} tokens, width ${width}${sequence ? ', sequence cut' : ''}: ${count === 1 ? 'in one' : `${count} pieces`}`,
      value: forward,
      unit: 'ms forward',
      note: `with backward ${both.toFixed(1)} ms; ${count === 1 ? `communication alone ${alone.toFixed(2)} ms` : change}`,
    }
  })
}

const benchmark: Benchmark = {
  title: 'Products of a cut MLP in pieces, 2 ranks',
  async run() {
    const rows: Row[] = []
    for (const [tokens, width] of [
      [8192, 128],
      [2048, 768],
    ] as const) {
      for (const sequence of [false, true]) {
        const shape = { tokens, width, sequence }
        const result = await inChild<Shape, Result>(import.meta.url, shape, { ranks: 2, threads: 1 })
        rows.push(...rowsOf(shape, result))
      }
    }
    return rows
  },
}
export default benchmark
