// One rank of test/ranks/pipeline.test.ts: a user's list of layers that draws in every way (a Dropout of its own, one that
// layers share, one that no layer lists, ops.dropout with and without a site), trained on any layout; prints the losses.
import { initialize, nn, ops, tensor } from '../../../dist/index.js'

const [mesh, more] = process.argv.slice(2).map((text) => JSON.parse(text))

class Block extends nn.Module {
  up = new nn.Linear(8, 8)
  drop = new nn.Dropout(0.2)
  forward(x) {
    return ops.add(x, this.drop.forward(ops.tanh(this.up.forward(this.drop.forward(x)))))
  }
}
class Layers extends nn.LayeredModel {
  blocks = Array.from({ length: 4 }, () => new Block())
  shared = new nn.Dropout(0.2)
  unlisted = new nn.Dropout(0.2)
  layers() {
    const blocks = this.blocks.map((block, index) => ({
      type: 'block',
      modules: [block, this.shared],
      recomputed: index > 1 ? 0 : undefined,
      forward: (x, [input]) => {
        const h = this.shared.forward(block.forward(x ?? input))
        return ops.dropout(ops.dropout(this.unlisted.forward(h), 0.2, 'here'), 0.2)
      },
    }))
    const loss = { type: 'loss', modules: [], forward: (x, [, y]) => ops.meanSquaredError(x, y) }
    return [...blocks, loss]
  }
}

const engine = await initialize({
  model: new Layers(),
  config: {
    train_batch_size: 8,
    train_micro_batch_size_per_gpu: 2,
    optimizer: { type: 'AdamW', params: { lr: 1e-2 } },
    mesh,
    ...more,
  },
})
const values = (first, salt) =>
  tensor(
    Float32Array.from({ length: 16 }, (_, i) => Math.sin((first * 8 + i) * 0.7 + salt)),
    [2, 8],
  )
const losses = []
for (let step = 0; step < 4; step++)
  losses.push((await engine.trainBatch((first) => [values(first, 0), values(first, 1)])).loss)
const { rank } = engine.group
await engine.close()
if (rank === 0) console.log(JSON.stringify(losses))
