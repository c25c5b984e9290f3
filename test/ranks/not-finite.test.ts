// A gradient that is not finite is told by its parameter's name, on every rank, whichever rank's shard has it; what the
// step left is not in the next one. Real processes.

import t from 'tap'
import { Workspace } from '../helpers/program.js'

interface Told {
  told: string[]
  skipped: boolean
  losses: (number | null)[]
  tensors: number
}

const ofNet = ['up.weight', 'up.bias', 'down.weight', 'down.bias']
const ofLayers = [0, 1, 2, 3].map((layer) => `list.${layer}.linear.weight`)

for (const [where, stages, names] of [
  ['data', [0, 1, 2, 3], ofNet],
  ['tensor', [0, 1], ofNet],
  ['pipeline', [0, 1], ofLayers],
] as const) {
  t.test(`${where}-parallel ranks name the first parameter in the model's order`, async (t) => {
    const space = new Workspace(t)
    const curves: (number | null)[][] = []
    for (const stage of stages) {
      for (const [bad, place] of [
        [[0], 'last'],
        [[3, 1], 'first'],
        [[3, 2], 'last'],
      ] as const) {
        const args = [where, String(stage), place, ...bad.map((index) => names[index] as string)]
        const outcome = await space.launch('not-finite.mjs', args, 2)
        t.equal(outcome.status, 0, outcome.stderr)
        const lines = outcome.stdout.trim().split('\n')
        t.equal(lines.length, 2)
        for (const line of lines) {
          const { told, skipped, losses, tensors } = JSON.parse(line.replace(/^\[rank \d\] /, '')) as Told
          const name = names[Math.min(...bad)] as string
          t.strictSame({ told, skipped, tensors }, { told: [name, name], skipped: true, tensors: 0 }, args.join(' '))
          curves.push(losses)
        }
      }
    }
    t.equal(curves[0]?.length, 3)
    t.ok(
      curves.every((losses) => losses.every(Number.isFinite)),
      'good steps follow',
    )
    for (const losses of curves) t.strictSame(losses, curves[0], 'the same ones: nothing of the bad step is left')
  })
}
