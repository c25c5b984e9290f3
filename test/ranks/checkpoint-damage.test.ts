// What a checkpoint folder may meet: altered and missing files, links, things of others, a disk that is full.

import { execFileSync, spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { losses, mayMount, Workspace, whole } from '../helpers/program.js'

const stepName = (step: number): string => `step-${String(step).padStart(8, '0')}`

t.test('damage is found and named, and the checkpoint before is used, on all ranks', async (t) => {
  const space = new Workspace(t)
  const config = space.config({ train: { steps: 6, save_interval: 2, seed: 3 }, zero_optimization: { stage: 1 } })
  const run = whole(t, await space.train(config, { ranks: 2, output: space.path('out') }))
  const folder = space.path('out/checkpoints')
  const newest = join(folder, stepName(6))
  const data = join(newest, 'rank-00001-of-00002.safetensors')
  const kept = space.path('kept')
  cpSync(newest, kept, { recursive: true })
  const bytes = readFileSync(data)
  const cases: [string, RegExp, () => void][] = [
    [
      'a byte',
      /rank-00001.*checksum differs/,
      () => {
        const other = Buffer.from(bytes)
        other[bytes.length - 5] = (other[bytes.length - 5] as number) ^ 1
        writeFileSync(data, other)
      },
    ],
    [
      'the end',
      new RegExp(`rank-00001.*has ${bytes.length - 1} bytes, ${bytes.length}`),
      () => truncateSync(data, bytes.length - 1),
    ],
    ['a file', /rank-00001.*ENOENT/, () => rmSync(data)],
    [
      'a link out',
      /rank-00001.*not a plain file/,
      () => {
        rmSync(data)
        symlinkSync(join(kept, 'rank-00001-of-00002.safetensors'), data)
      },
    ],
    [
      'a pipe',
      /rank-00001.*not a plain file/,
      () => {
        rmSync(data)
        execFileSync('mkfifo', [data])
      },
    ],
    ['the manifest', /manifest\.json.*torn/, () => truncateSync(join(newest, 'manifest.json'), 300)],
    ['no manifest', /no whole checkpoint/, () => rmSync(join(newest, 'manifest.json'))],
  ]
  for (const [name, pattern, damage] of cases) {
    damage()
    const inspected = await space.start(['inspect', newest, '--verify']).done
    t.equal(inspected.status, 1, name)
    t.match(inspected.stderr, pattern, name)
    rmSync(newest, { recursive: true })
    cpSync(kept, newest, { recursive: true })
  }
  truncateSync(data, 100)
  const named = await space.train(config, { ranks: 2, args: ['--resume', newest] })
  t.equal(named.status, 1)
  t.match(named.stderr, /rank-00001-of-00002\.safetensors: has 100 bytes/)
  const resumed = await space.train(config, {
    ranks: 4,
    output: space.path('out'),
    args: ['--resume', 'auto', '--steps', '4'],
  })
  t.equal(resumed.status, 0, resumed.stderr)
  t.match(resumed.stderr, /step-00000006 is damaged and not used: .*rank-00001-of-00002\.safetensors: has 100 bytes/)
  t.equal(resumed.stderr.match(/is damaged/g)?.length, 1, 'said once')
  const again = whole(t, await space.train(config, { ranks: 2, output: space.path('out'), args: ['--resume', 'auto'] }))
  t.strictSame(losses(again), losses(run).slice(4), 'the same curve, from step 4')
  t.equal((await space.start(['inspect', newest, '--verify']).done).status, 0, 'the damaged one is replaced')
})

t.test('things of others are left alone, and nothing outside is touched', async (t) => {
  const space = new Workspace(t)
  const config = space.config({ train: { steps: 4, save_interval: 1, keep_checkpoints: 1, seed: 3 } })
  const output = space.path('out')
  whole(t, await space.train(config, { ranks: 2, output, args: ['--steps', '2'] }))
  const folder = join(output, 'checkpoints')
  const outside = space.path('outside')
  mkdirSync(outside)
  writeFileSync(join(outside, 'precious'), 'x')
  for (const name of ['notes.txt', 'tmp-notes', 'step-two']) writeFileSync(join(folder, name), 'mine')
  mkdirSync(join(folder, stepName(7)))
  symlinkSync(outside, join(folder, stepName(99)))
  symlinkSync(outside, join(folder, stepName(1)))
  symlinkSync(outside, join(folder, `tmp-${stepName(3)}`))
  writeFileSync(join(folder, 'latest'), '../../outside\n')
  const run = await space.train(config, { ranks: 2, output, args: ['--resume', 'auto'] })
  t.equal(run.status, 0, run.stderr)
  t.match(run.stderr, /step-00000099 is damaged and not used/)
  t.match(run.stderr, /step-00000007 is damaged and not used/)
  t.strictSame(
    run.steps.map(({ step }) => step),
    [3, 4],
    'resumed at step 2',
  )
  t.strictSame(readdirSync(outside), ['precious'])
  const left = readdirSync(folder).sort()
  t.strictSame(left, ['latest', 'notes.txt', stepName(4), stepName(7), stepName(99), 'step-two', 'tmp-notes'])
  t.equal(readFileSync(join(folder, 'latest'), 'utf8'), `${stepName(4)}\n`)
})

t.test(
  'a full disk ends the run with the file and the byte; the checkpoint before stands, and the run goes on',
  { skip: mayMount() ? false : 'a small file system needs root' },
  async (t) => {
    for (const background of [false, true]) {
      const space = new Workspace(t)
      const disk = space.path('disk')
      mkdirSync(disk)
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', disk])
      t.teardown(() => spawnSync('umount', ['-l', disk]))
      const output = join(disk, 'out')
      const settings = {
        train: { steps: 12, save_interval: 1, seed: 3 },
        checkpoint: { async_save: background },
        zero_optimization: { stage: 1 },
      }
      const reference = losses(whole(t, await space.train(space.config(settings), { ranks: 2 })))
      const full = await space.train(space.config(settings), { ranks: 2, output })
      t.equal(full.status, 1, full.stderr)
      t.match(full.stderr, /tmp-step-\d+\/\S+: could not be written at byte \d+: ENOSPC/)
      const folder = join(output, 'checkpoints')
      const newest = readdirSync(folder).filter((name) => name.startsWith('step-')).length
      t.ok(newest >= 2 && newest < 12, `${newest} checkpoints fit`)
      t.notOk(
        readdirSync(folder).some((name) => name.startsWith('tmp-')),
        'what did not fit is removed',
      )
      t.equal((await space.start(['inspect', output, '--verify']).done).status, 0, 'the one before is whole')
      t.equal(readFileSync(join(folder, 'latest'), 'utf8'), `${stepName(newest)}\n`)
      execFileSync('mount', ['-o', 'remount,size=16m', disk])
      const rest = whole(t, await space.train(space.config(settings), { ranks: 2, output, args: ['--resume', 'auto'] }))
      t.strictSame(losses(rest), reference.slice(newest), 'the same curve')
      t.ok(existsSync(join(folder, stepName(12))))
    }
  },
)
