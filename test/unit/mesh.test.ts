// Which rank stands where: any mesh is a bijection of ranks and places, its groups part the world, tp is innermost.

import fc from 'fast-check'
import t from 'tap'
import { ProcessGroup } from '../../lib/parallel/group.js'
import { axes, Mesh, MeshShape } from '../../lib/parallel/mesh.js'

t.test('sizes that do not multiply to the world, or are none, are refused with both', async (t) => {
  t.throws(() => Mesh.create(ProcessGroup.single(), { dp: 2, tp: 3 }), {
    code: 'CONFIG',
    message: '[mesh] pp 1 x dp 2 x cp 1 x ep 1 x tp 3 is 6 ranks, the world has 1; change an axis or --nproc',
  })
  for (const size of [0, -1, 1.5, Number.NaN])
    t.throws(() => new MeshShape({ cp: size }), { code: 'CONFIG', message: `[mesh] axis cp has size ${size}; it must` })
})

t.test('two stages of two replicas of two tensor ranks', async (t) => {
  const shape = new MeshShape({ pp: 2, dp: 2, tp: 2 })
  t.strictSame(shape.placeOf(6), { pp: 1, dp: 1, cp: 0, ep: 0, tp: 0 })
  t.strictSame(shape.ranksAlong(6, ['tp']), [6, 7])
  t.strictSame(shape.ranksAlong(6, ['dp']), [4, 6])
  t.strictSame(shape.ranksAlong(6, ['pp']), [2, 6])
  t.strictSame(shape.ranksAlong(6, ['pp', 'tp']), [2, 3, 6, 7])
  const lines = ['pp 0  dp 0: [ 0 1 ]', 'pp 0  dp 1: [ 2 3 ]', 'pp 1  dp 0: [ 4 5 ]', 'pp 1  dp 1: [ 6 7 ]']
  t.equal(shape.toString(), ['pp 2 x dp 2 x tp 2', ...lines.map((line) => `  ${line}`)].join('\n'))
})

t.test('any mesh: places and ranks are one to one; groups along any axes part the world', async () => {
  const size = fc.integer({ min: 1, max: 3 })
  const sizes = fc.record({ pp: size, dp: size, cp: size, ep: size, tp: size })
  fc.assert(
    fc.property(sizes, fc.subarray([...axes]), (chosen, along) => {
      const shape = new MeshShape(chosen)
      const seen = new Map<string, number[]>()
      const places = new Set<string>()
      for (let rank = 0; rank < shape.worldSize; rank++) {
        const place = shape.placeOf(rank)
        if (shape.rankOf(place) !== rank) return false
        if (axes.some((axis) => place[axis] < 0 || place[axis] >= chosen[axis])) return false
        places.add(JSON.stringify(place))
        const group = shape.ranksAlong(rank, along)
        if (!group.includes(rank) || group.some((other, i) => other <= (group[i - 1] ?? -1))) return false
        // All that have the same place on the other axes, and only those, have this group.
        const rest = axes.filter((axis) => !along.includes(axis)).map((axis) => place[axis])
        const before = seen.get(rest.join())
        if (before && before.join() !== group.join()) return false
        seen.set(rest.join(), group)
      }
      const members = [...seen.values()].flat()
      const expected = along.reduce((product, axis) => product * chosen[axis], 1)
      return (
        places.size === shape.worldSize &&
        members.length === shape.worldSize &&
        new Set(members).size === shape.worldSize &&
        [...seen.values()].every((group) => group.length === expected)
      )
    }),
  )
})
