// initialize() on several ranks: where one fails, all end; what the configuration reports is reported.

import { readdirSync, readFileSync } from 'node:fs'
import t from 'tap'
import { Workspace } from '../helpers/program.js'

t.test('where it fails on one rank, the others end within seconds and say why', async (t) => {
  const space = new Workspace(t)
  for (const failing of [0, 1]) {
    const started = Date.now()
    const { status, stderr } = await space.launch('initialize.mjs', ['fails', String(failing)], 2)
    t.equal(status, 1)
    t.match(stderr, new RegExp(`rank ${failing} failed first[^]*nothing|nothing[^]*rank ${failing}`), 'its own words')
    t.ok(Date.now() - started < 30_000, 'not after the time-out of 600 s')
  }
})

t.test("a loop of the user's own has the notes, lines and events that its configuration asks for", async (t) => {
  const space = new Workspace(t)
  const { status, stderr } = await space.launch('initialize.mjs', ['reports', space.path('events')], 2)
  t.equal(status, 0, stderr)
  const lines = (pattern: RegExp): number => stderr.split('\n').filter((line) => pattern.test(line)).length
  t.equal(lines(/note: .*round_robin_gradients/), 1, 'said once, by rank 0')
  t.equal(lines(/step [24]: loss \d/), 2)
  t.equal(lines(/step [24]: .*forward/), 2, stderr)
  const file = readdirSync(space.path('events'), { recursive: true, encoding: 'utf8' }).find((name) =>
    name.endsWith('train_loss.csv'),
  )
  t.equal(
    readFileSync(`${space.path('events')}/${file}`, 'utf8')
      .trim()
      .split('\n').length,
    5,
    'a head and four steps',
  )
})
