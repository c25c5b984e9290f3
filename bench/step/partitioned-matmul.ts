// One MLP (column, row) of GPT-2 cut over the ranks: forward, and forward with backward, with the products in 1 to 8
// pieces whose communication runs beside the next one. All settings take turns in one run; medians.
// Run: node dist/cli/main.js launch --nproc 2 bench/step/partitioned-matmul.ts [tokens] [width]

import { backwardFrom } from '../../lib/autograd/functions.js'
import { noGrad } from '../../lib/autograd/tape.js'
import { binding } from '../../lib/binding/native.js'
import { joinWorld, leaveWorld } from '../../lib/engine/initialize.js'
import { Linear, Module, normal } from '../../lib/nn/index.js'
import * as ops from '../../lib/ops/index.js'
import { ColumnParallelLinear, Region, RowParallelLinear, scatter } from '../../lib/parallel/index.js'
import { tidy } from '../../lib/tensor/scope.js'
import { empty, runOp, type Tensor } from '../../lib/tensor/tensor.js'

const [tokens = 2048, width = 768] = process.argv.slice(2).map(Number)
const samples = 4
const repeats = 15
const pieces = [1, 2, 4, 8]

class Mlp extends Module {
  up: Module & { forward(x: Tensor): Tensor }
  down: Module & { forward(x: Tensor): Tensor }
  constructor(readonly region: Region) {
    super()
    this.up = new ColumnParallelLinear(
      new Linear(width, 4 * width, { init: normal(0.02), activation: 'geluTanh' }),
      region,
    )
    this.down = new RowParallelLinear(new Linear(4 * width, width, { init: normal(0.02) }), region)
  }
  forward(x: Tensor): Tensor {
    return this.down.forward(this.up.forward(x))
  }
}

const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1] as number

const world = await joinWorld()
const { group } = world
const whole = empty([samples, tokens / samples, width], { shared: true })
runOp('random_fill', [whole], [], [1, 0, 1, 1, 1, 0])
const shard = scatter(whole, 1, group)

async function timed(run: () => void): Promise<number> {
  await group.barrier()
  const start = performance.now()
  run()
  await binding().native.synchronize(-1)
  return performance.now() - start
}

const rows: string[] = []
for (const sequence of [false, true]) {
  const x = sequence ? shard : whole
  x.requiresGrad = true
  const models = pieces.map((chunks) =>
    new Mlp(new Region(group, { sequence: sequence ? () => true : undefined, chunks })).materialize({ seed: 1 }),
  )
  const times = pieces.map(() => ({ forward: [] as number[], both: [] as number[] }))
  for (let repeat = -2; repeat < repeats; repeat++) {
    for (const [index, model] of models.entries()) {
      const forward = await timed(() => tidy(() => noGrad(() => void model.forward(x))))
      const both = await timed(() => tidy(() => backwardFrom(ops.sum(model.forward(x)))))
      if (repeat < 0) continue
      times[index]?.forward.push(forward)
      times[index]?.both.push(both)
    }
  }
  for (const [index, chunks] of pieces.entries()) {
    const { forward, both } = times[index] as { forward: number[]; both: number[] }
    const mode = sequence ? 'sequence cut' : 'replicated'
    rows.push(`| ${mode} | ${chunks} | ${median(forward).toFixed(1)} | ${median(both).toFixed(1)} |`)
  }
  for (const model of models) model.dispose()
  x.grad?.dispose()
}
if (group.rank === 0) {
  console.log(`${group.size} ranks, ${tokens} tokens, width ${width}; ms, median of ${repeats}\n`)
  console.log('| activations | pieces | forward | forward + backward |\n|---|---|---|---|')
  console.log(rows.join('\n'))
}
await leaveWorld(world)
process.exit(0)
