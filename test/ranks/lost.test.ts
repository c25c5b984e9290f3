// A rank that dies in the midst of a step is named by every other, on any mesh; one that is slow is waited for, as long
// as no single wait is longer than the time-out.

import t from 'tap'
import { processesOf, Workspace } from '../helpers/program.js'

const meshes: [name: string, config: object][] = [
  ['a pipeline of 4', { mesh: { pipeline: 4 } }],
  ['tensor ranks of a pipeline', { mesh: { pipeline: 2, tensor: 2 } }],
  [
    'a ring beside stage 3',
    { mesh: { context: 2 }, context_parallel: { type: 'ring' }, zero_optimization: { stage: 3 } },
  ],
  ['an all-to-all of 2, a pipeline of 2', { mesh: { pipeline: 2, context: 2 }, context_parallel: { type: 'ulysses' } }],
]

for (const [name, config] of meshes) {
  t.test(`${name}: a rank that dies is named by all others, within seconds`, async (t) => {
    const space = new Workspace(t)
    for (const victim of [0, 2]) {
      const started = Date.now()
      const { status, stderr } = await space.launch('lost.mjs', ['dies', String(victim), JSON.stringify(config)], 4)
      t.equal(status, 1)
      const told = stderr.split('\n').filter((line) => line.includes('RANK_LOST in step 3'))
      t.equal(new Set(told).size, 3, stderr)
      for (const line of told) t.match(line, new RegExp(`rank ${victim} .*(died|ended)`))
      t.match(stderr, `rank ${victim} was killed by SIGKILL`, 'the launcher names it')
      t.ok(Date.now() - started < 30_000, 'not after the time-out of 600 s')
      t.strictSame(processesOf(space.folder), [], 'no process is left')
    }
  })

  t.test(`${name}: a slow rank is waited for`, async (t) => {
    const space = new Workspace(t)
    // 1.3 s late, three times, where 3 s are allowed: each wait has all of them.
    const args = ['sleeps', '2', JSON.stringify(config)]
    const { status, stdout, stderr } = await space.launch('lost.mjs', args, 4, { ZEROSHARD_TIMEOUT: '3' })
    t.equal(status, 0, stderr)
    t.match(stdout, '3 steps')
  })
}
