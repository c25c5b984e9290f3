// Optimizers that need whole parameters, on real ranks: however the range is cut, the bits are those of one process.

import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { binding } from '../../lib/binding/native.js'
import { launchLocal } from '../../lib/launch/local.js'
import { nodeCommand } from '../helpers/node.js'
import { SIZE as all, cases, run } from '../helpers/optimizer-cases.js'
import { Workspace } from '../helpers/program.js'

binding().native.configure({ threads: 2, serial: false })

const script = fileURLToPath(new URL('../helpers/optimizer-cases.ts', import.meta.url))

/** Elements of each rank: equal, with empty parts at both ends, cut after one element, one matrix on three ranks. */
const plans: number[][][] = [
  [
    [all / 2, all / 2],
    [0, all],
    [all, 0],
    [1, all - 1],
    [all - 40, 40],
  ],
  [
    [240, 240, all - 480],
    [100, 50, all - 150],
    [10_000, 5_000, all - 15_000],
    [0, 300, all - 300],
  ],
]

for (const plan of plans) {
  const ranks = (plan[0] as number[]).length
  t.test(`${ranks} ranks have the bits of one, LAMB and Muon too`, async (t) => {
    const space = new Workspace(t)
    const file = space.path('bits')
    const outcome = await launchLocal({
      nproc: ranks,
      command: nodeCommand[0],
      args: [...nodeCommand.slice(1), '--import', import.meta.resolve('tsx'), script, file, JSON.stringify(plan)],
      env: { ...process.env, ZEROSHARD_NUM_THREADS: '1', ZEROSHARD_TIMEOUT: '30' },
    })
    t.equal(outcome.status, 0, outcome.message ?? 'done')
    const parts = Array.from(
      { length: ranks },
      (_, rank) => JSON.parse(readFileSync(`${file}.${rank}`, 'utf8')) as Record<string, Record<string, string>>,
    )
    for (const name of Object.keys(cases)) {
      const whole = await run(name)
      for (const counts of plan) {
        for (const [tensor, bits] of Object.entries(whole)) {
          const pieces = parts.map((part) => Buffer.from(part[`${name} ${counts}`]?.[tensor] as string, 'base64'))
          const same = Buffer.concat(pieces).equals(Buffer.from(bits, 'base64'))
          t.ok(same, `${name}, ${counts} elements: ${tensor}`)
        }
      }
    }
  })
}
