// Where offload puts the units' buffers, before any has memory: by ratio, by what may stay in memory, by stage.

import t from 'tap'
import type { Optimizer } from '../../lib/optim/optimizer.js'
import type { UnitLayout } from '../../lib/parallel/zero/layout.js'
import { checkOffload, type OffloadOptions, planBytes, planPlaces } from '../../lib/parallel/zero/offload.js'
import { lifetimes, type Stage } from '../../lib/parallel/zero/unit.js'

const layout = (size: number, more: Partial<UnitLayout> = {}): UnitLayout => ({
  module: '',
  name: '',
  index: 0,
  slots: [],
  size,
  shardSize: size / 4,
  groups: [],
  trainable: true,
  persistent: false,
  leaf: false,
  replicas: undefined,
  partialGradient: false,
  partialOver: undefined,
  ...more,
})
const adam = { states: ['exp_avg', 'exp_avg_sq'] } as unknown as Optimizer
const request = (stage: Stage, offload: OffloadOptions, dtype: 'f32' | 'bf16' = 'f32') => ({
  lifetimes: lifetimes[stage],
  dtype,
  optimizer: adam,
  offload,
})
const nvme = { device: 'nvme', path: '/nvme', bufferCount: 4, ratio: 1 } as const

t.test('contradictions are told', async (t) => {
  const throws = (stage: number, offload: OffloadOptions, pattern: RegExp): void => {
    t.throws(() => checkOffload(stage, offload), { code: 'CONFIG', message: pattern })
  }
  throws(2, { parameters: { device: 'cpu', maxInMemory: 0 } }, /whole on every rank at stage 2/)
  throws(1, { optimizer: { device: 'nvme', bufferCount: 4, ratio: 1 } }, /optimizer on nvme need a path/)
  throws(1, { optimizer: { ...nvme, ratio: 1.5 } }, /ratio 1\.5/)
  throws(1, { optimizer: { ...nvme, bufferCount: 0 } }, /bufferCount 0/)
  checkOffload(0, { optimizer: nvme })
  checkOffload(3, { optimizer: nvme, parameters: { device: 'nvme', path: '/nvme', maxInMemory: 0 } })
})

t.test('a ratio moves that part of the elements, spread over the units, to within half of one', async (t) => {
  const layouts = [3200, 6400, 6400, 640, 6400, 6400, 6400, 320].map((size) => layout(size))
  layouts.push(layout(64_000, { trainable: false }))
  const total = layouts.reduce((sum, { size, trainable }) => sum + (trainable ? size : 0), 0)
  for (const ratio of [0, 0.1, 0.25, 0.5, 0.8, 1]) {
    const places = planPlaces(layouts, request(1, { optimizer: { ...nvme, ratio } }))
    const moved = layouts.reduce((sum, { size }, i) => sum + (places[i]?.optimizer === 'disk' ? size : 0), 0)
    t.ok(Math.abs(moved - ratio * total) <= 3200, `${ratio}: ${moved} of ${total}`)
    t.equal(places.at(-1)?.optimizer, 'device', 'frozen ones have no states')
  }
})

t.test('the first shards of parameters stay in memory, as many as may; small ones always are whole', async (t) => {
  const layouts = [layout(400), layout(4000), layout(40, { persistent: true }), layout(800), layout(400)]
  const parameters = { device: 'nvme', path: '/nvme', maxInMemory: 320 } as const
  const places = planPlaces(layouts, request(3, { parameters })).map((place) => place.parameters)
  t.strictSame(places, ['host', 'disk', 'device', 'host', 'disk'])
  t.ok(planPlaces(layouts, request(2, { optimizer: nvme })).every((place) => place.parameters === 'device'))
})

t.test("bytes on disk: this rank's part, in pages, with the master values of 16-bit training", async (t) => {
  const layouts = [layout(16_384), layout(400, { trainable: false })]
  const offload: OffloadOptions = { optimizer: nvme, parameters: { device: 'nvme', path: '/nvme', maxInMemory: 0 } }
  const bytes = (stage: Stage, dtype: 'f32' | 'bf16') => {
    const asked = request(stage, offload, dtype)
    return planBytes(layouts, planPlaces(layouts, asked), asked)
  }
  t.strictSame(bytes(3, 'f32'), { optimizer: 2 * 16_384, parameters: 16_384 + 4096 })
  t.strictSame(bytes(3, 'bf16'), { optimizer: 3 * 16_384, parameters: 8192 + 4096 })
  t.strictSame(bytes(1, 'bf16'), { optimizer: 3 * 16_384, parameters: 0 })
  t.strictSame(bytes(0, 'f32'), { optimizer: 2 * 65_536, parameters: 0 })
})
