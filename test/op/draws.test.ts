// What dropout draws when: each application anew, the same again where a part is recomputed, and whatever a rank has of
// the model.

import t from 'tap'
import { backwardFrom, checkpoint } from '../../lib/autograd/functions.js'
import { binding } from '../../lib/binding/native.js'
import { initialize } from '../../lib/engine/initialize.js'
import * as nn from '../../lib/nn/index.js'
import * as ops from '../../lib/ops/index.js'
import { beginDraws, drawsAt, siteOf } from '../../lib/ops/random.js'
import { cutModel } from '../../lib/parallel/pipeline/stage.js'
import { tidy, unscoped } from '../../lib/tensor/scope.js'
import { type Tensor, tensor } from '../../lib/tensor/tensor.js'
import { alive } from '../helpers/compare.js'

binding().native.configure({ threads: 1, serial: false })
const begin = (more: Partial<Parameters<typeof beginDraws>[0]> = {}): void =>
  beginDraws({ seed: 3, step: 2, firstSample: 0, forward: 0, ...more })
const ones = (): Tensor => tensor(new Float32Array(64).fill(1), [8, 8])
/** Which elements were dropped, as text. */
const maskOf = (x: Tensor): string => [...(x.dataSync() as Float32Array)].map((value) => (value ? 1 : 0)).join('')
const distinct = (masks: readonly string[]): number => new Set(masks).size

t.test('first draws are those of their names; later ones of a site, and further forwards, are new', async (t) => {
  const at = (name: string): number => siteOf('dropout', 2, name)
  begin()
  t.equal(drawsAt('a')().site, at('a'))
  t.equal(drawsAt()().site, at('draw 0'))
  t.equal(drawsAt('b')().site, at('b'))
  t.equal(drawsAt()().site, at('draw 1'))
  const seen = [
    drawsAt('a')().site,
    drawsAt('a')().site,
    drawsAt('draw')().site,
    drawsAt('')().site,
    drawsAt('')().site,
  ]
  begin({ forward: 1 })
  seen.push(drawsAt('a')().site, drawsAt()().site)
  t.equal(new Set([...seen, ...['a', 'b', 'draw 0', 'draw 1'].map(at)]).size, seen.length + 4)
  begin()
  t.equal(drawsAt('a')().site, at('a'), 'a forward begins anew')
})

class Twice extends nn.Module {
  readonly drop = new nn.Dropout(0.5)
  readonly masks: string[] = []
  forward(x: Tensor): Tensor {
    const [a, b, c, d] = [0, 0, 0, 0].map((_, i) => (i < 2 ? this.drop.forward(x) : ops.dropout(x, 0.5)))
    for (const y of [a, b, c, d]) this.masks.push(maskOf(y as Tensor))
    const weights = ops.attention(x3(x), x3(x), x3(x), { numHeads: 1, causal: false, dropout: this.drop.ofAttention() })
    return ops.add(
      ops.add(a as Tensor, ops.scale(b as Tensor, 2)),
      ops.add(ops.mul(c as Tensor, d as Tensor), ops.reshape(weights, [8, 8])),
    )
  }
}
const x3 = (x: Tensor): Tensor => ops.reshape(x, [1, 8, 8])

t.test('one Dropout used twice draws twice, and the same again where it is recomputed', async (t) => {
  const before = alive()
  const model = new Twice()
  model.visit(() => {})
  const run = (recomputed: boolean): { y: Float32Array; dx: Float32Array } =>
    tidy(() => {
      begin()
      const x = ones()
      x.requiresGrad = true
      const once = (a: Tensor): Tensor => model.forward(a)
      const part = recomputed ? (a: Tensor): Tensor => checkpoint(once, a) : once
      const y = part(part(x))
      begin({ step: 9, forward: 1 }) // others draw before its backward
      model.drop.forward(x)
      backwardFrom(ops.sum(y))
      const dx = x.grad?.dataSync() as Float32Array
      x.grad?.dispose()
      return { y: y.dataSync() as Float32Array, dx }
    })
  const plain = run(false)
  t.equal(distinct(model.masks), 8)
  const seen = model.masks.splice(0)
  const again = run(true)
  t.strictSame(model.masks.slice(0, 8), seen, 'the same masks forward')
  t.strictSame([...model.masks.slice(12), ...model.masks.slice(8, 12)], seen, 'and in the parts that are recomputed')
  t.strictSame(again, plain)
  t.equal(alive(), before, 'nothing is left')
})

class Branches extends nn.Module {
  readonly up = new nn.Linear(8, 8)
  readonly drop = new nn.Dropout(0.5)
  readonly masks: string[] = []
  forward(x: Tensor): Tensor {
    this.masks.push(maskOf(this.drop.forward(x)))
    return ops.mean(this.drop.forward(this.up.forward(x)))
  }
}

t.test('forwards of one micro-batch draw anew, and a step or a load begins again', async (t) => {
  const make = async () => {
    const model = new Branches()
    const config = { train_micro_batch_size_per_gpu: 8, optimizer: { type: 'SGD', params: { lr: 0.1 } } }
    return { model, engine: await initialize({ model, config }) }
  }
  const before = alive()
  const { model, engine } = await make()
  const x = unscoped(ones)
  const folder = t.testdir()
  const step = async (forwards: number): Promise<void> => {
    const losses = Array.from({ length: forwards }, () => engine.forward(x))
    const loss = tidy(() => losses.reduce((sum, each) => ops.add(sum, each)))
    engine.backward(loss)
    for (const each of losses) each.dispose()
    await engine.step()
  }
  const path = await engine.saveCheckpoint(folder)
  await step(1)
  await step(3)
  engine.forward(x).dispose() // looked at, and no more
  await engine.loadCheckpoint(path)
  await step(3)
  await step(1)
  const { masks } = model
  t.equal(masks.length, 9)
  t.equal(distinct(masks.slice(0, 5)), 5, 'all of two steps differ')
  t.equal(masks[5], masks[0], 'after a load the step draws as it did')
  t.equal(masks[8], masks[1])
  t.equal(distinct(masks.slice(5, 8)), 3)
  await engine.close()
  x.dispose()
  t.equal(alive(), before, 'nothing is left')
})

/** Draws in every way, in some layers: listed, not listed, shared, without a name; one is recomputed. */
class Layers extends nn.LayeredModel {
  readonly blocks = Array.from({ length: 4 }, () => new Twice())
  readonly shared = new nn.Dropout(0.5)
  readonly unlisted = new nn.Dropout(0.5)
  masks: string[] = []
  layers(): nn.Layer[] {
    return this.blocks.map((block, index) => ({
      type: 'block',
      modules: index % 2 ? [block, this.shared] : [block],
      ...(index > 1 && { recomputed: 0 }),
      forward: (x, [input]) => {
        const from = x ?? (input as Tensor)
        block.forward(from)
        for (const drop of [this.shared, this.unlisted]) this.masks.push(maskOf(drop.forward(ones())))
        this.masks.push(
          ...block.masks.splice(0),
          maskOf(ops.dropout(ones(), 0.5, 'here')),
          maskOf(ops.dropout(ones(), 0.5)),
        )
        return ops.scale(from, 1) // so that all see ones
      },
    }))
  }
}

t.test('a stage of a pipeline draws what the whole model does there', async (t) => {
  const before = alive()
  const model = new Layers()
  model.visit(() => {})
  const whole = tidy(() => {
    begin()
    model.forward(ones())
    return model.masks.splice(0)
  })
  t.equal(whole.length, 4 * 8)
  t.equal(distinct(whole), whole.length, 'no two are alike')
  for (const [stages, numChunks] of [
    [2, 1],
    [4, 1],
    [2, 2],
  ] as const) {
    const drawn: string[][] = []
    for (let pp = stages - 1; pp >= 0; pp--) {
      const mesh = { sizes: { pp: stages, tp: 1 }, place: { pp, tp: 0 } } as unknown as Parameters<typeof cutModel>[1]
      const { chunks } = cutModel(model, mesh, { numChunks, layout: 'loop' }, 'uniform')
      for (const [chunk, { layers, drawing }] of chunks.entries()) {
        begin()
        tidy(() => void nn.runLayers(layers, ones(), [], drawing))
        drawn[chunk * stages + pp] = model.masks.splice(0)
      }
    }
    t.strictSame(drawn.flat(), whole, `${stages} stages of ${numChunks}`)
  }
  t.equal(alive(), before, 'nothing is left')
})
