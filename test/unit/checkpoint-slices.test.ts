// Parts of parameters from files that were cut in another way, in small buckets, against an index-by-index copy.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import type { Manifest, SliceEntry } from '../../lib/checkpoint/manifest.js'
import { type TensorPlan, writeSafetensors } from '../../lib/checkpoint/safetensors.js'
import { SliceReader } from '../../lib/checkpoint/slices.js'
import { constant, Parameter } from '../../lib/nn/parameter.js'
import { memory } from '../../lib/tensor/memory.js'
import { type DType, empty, runOp, type Tensor } from '../../lib/tensor/tensor.js'
import { fc } from '../helpers/properties.js'

type Range = [number, number]

/** [0, size) in pieces at these points. */
function pieces(size: number, points: number[]): Range[] {
  const bounds = [0, ...points.map((point) => point % (size + 1)).sort((a, b) => a - b), size]
  return bounds.slice(1).map((end, index): Range => [bounds[index] as number, end])
}

/** Whole indices of a part's elements, in the part's order. */
function indicesOf(shape: number[], dim: number, ranges: Range[]): number[] {
  const found: number[] = []
  const size = shape.reduce((product, n) => product * n, 1)
  const inner = shape.slice(dim + 1).reduce((product, n) => product * n, 1)
  for (let index = 0; index < size; index++) {
    const at = Math.floor(index / inner) % (shape[dim] as number)
    if (ranges.some(([from, to]) => at >= from && at < to)) found.push(index)
  }
  return found
}

function copy(target: Tensor, at: number, values: Tensor): void {
  const view = target.view([values.count], at)
  runOp('cast', [view], [values])
  view.dispose()
}

const cases = fc.record({
  shape: fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1, maxLength: 4 }),
  /** How the files are cut: along which dim, between which owners, and each owner's part between which ranks. */
  there: fc.record({ dim: fc.nat(3), owners: fc.array(fc.nat(9), { maxLength: 3 }), ranks: fc.array(fc.nat(99)) }),
  mine: fc.record({ dim: fc.nat(3), cut: fc.boolean(), ranges: fc.array(fc.nat(9), { maxLength: 4 }) }),
  from: fc.nat(99),
  to: fc.nat(99),
  limits: fc.record({ bucket: fc.constantFrom(4, 12, 64, 4096), span: fc.constantFrom(4, 8, 64, 4096) }),
  dtypes: fc.constantFrom<[DType, DType]>(['f32', 'f32'], ['bf16', 'bf16'], ['bf16', 'f32'], ['f32', 'bf16']),
})

t.test('any part of any cut is put together from files with another cut', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'zeroshard-slices-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const before = JSON.stringify([memory.stats().tensors, memory.stats().live.total])
  let numFiles = 0
  await fc.assert(
    fc.asyncProperty(cases, async ({ shape, there, mine, from, to, limits, dtypes: [stored, wanted] }) => {
      // integers up to 128 are the same in all types; of bf16 the upper half of f32's bits
      const code = (dtype: DType, value: number): number =>
        dtype === 'f32' ? value : (new Uint32Array(Float32Array.of(value).buffer)[0] as number) >>> 16
      const written = (index: number): number => index % 127
      const dim = there.dim % shape.length
      const slices: SliceEntry[] = []
      const owners = pieces(shape[dim] as number, there.owners).filter(([begin, end]) => begin < end)
      for (const [owner, range] of owners.entries()) {
        const indices = indicesOf(shape, dim, [range])
        for (const [rank, [begin, end]] of pieces(indices.length, there.ranks).entries()) {
          if (begin === end) continue
          const file = `${numFiles++}-${owner}-${rank}.safetensors`
          const codes = indices.slice(begin, end).map((index) => code(stored, written(index)))
          const values = stored === 'f32' ? Float32Array.from(codes) : Uint16Array.from(codes)
          const plan: TensorPlan = { key: 'x', dtype: stored, shape: [end - begin] }
          await writeSafetensors(join(folder, file), [plan], async () => new Uint8Array(values.buffer))
          const cut = owners.length > 1 ? { cut: { dim, ranges: [range] } } : {}
          slices.push({ parameter: 'p', kind: 'weight', file, key: 'x', start: begin, count: end - begin, ...cut })
        }
      }
      const parameter = new Parameter(shape, constant(0))
      parameter.name = 'p'
      const ownDim = mine.dim % shape.length
      const all = pieces(shape[ownDim] as number, mine.ranges)
      const ranges = mine.cut ? all.filter((_, index) => index % 2 === 0) : [[0, shape[ownDim]] as Range]
      if (mine.cut) parameter.cut(ownDim, ranges)
      const indices = indicesOf(shape, ownDim, ranges)
      const [start, end] = [from % (indices.length + 1), to % (indices.length + 1)].sort((a, b) => a - b) as Range
      const manifest = { parameters: { p: { shape, dtype: 'f32' } }, slices } as unknown as Manifest
      const reader = new SliceReader(folder, manifest, limits)
      const target = empty([end - start + 3], { dtype: wanted, zero: true })
      try {
        await reader.read(parameter, 'weight', start, end - start, (at, values) => copy(target, 2 + at, values))
        const expected = [0, 0, ...indices.slice(start, end).map(written), 0].map((value) => code(wanted, value))
        if ([...target.dataSync()].join() !== expected.join())
          throw new Error(`${[...target.dataSync()]} | ${expected}`)
      } finally {
        target.dispose()
        await reader.close()
      }
    }),
    { numRuns: 150 },
  )
  t.equal(JSON.stringify([memory.stats().tensors, memory.stats().live.total]), before, 'nothing is left')
})

t.test('throws naming the parameter where a part is not there', async (t) => {
  const parameter = new Parameter([4], constant(0))
  parameter.name = 'p'
  const manifest = { parameters: { p: { shape: [4], dtype: 'f32' } }, slices: [] } as unknown as Manifest
  const reader = new SliceReader('/nowhere', manifest)
  await t.rejects(
    reader.read(parameter, 'exp_avg', 0, 4, () => {}),
    { code: 'CHECKPOINT', message: /0 of 4.*exp_avg p/ },
  )
})
