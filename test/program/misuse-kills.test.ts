// Ranks killed while they save, one or all: the others end and say who, what was saved before is whole, the next run
// goes on from it, and nothing stays behind but checkpoints.

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { processesOf, rankOf, Workspace } from '../helpers/program.js'

/** Large enough that a save takes a while. */
const model = { model_type: 'gpt2', n_layer: 2, n_head: 4, n_embd: 256, n_positions: 16, vocab_size: 256 }
const sharedMemory = (): string[] => readdirSync('/dev/shm').filter((name) => name.startsWith('zeroshard'))

for (const [who, victims] of [
  ['one rank', [1]],
  ['rank 0', [0]],
  ['all ranks', [0, 1]],
  ['all ranks and the launcher', [0, 1, undefined]],
] as const) {
  t.test(`${who} killed in a save`, async (t) => {
    const space = new Workspace(t)
    const before = sharedMemory()
    const file = space.write(
      'save.json',
      space.config({
        model: { config: model },
        train: { steps: 1_000_000, save_interval: 1, keep_checkpoints: 2, seed: 1 },
        zero_optimization: { stage: 1 },
      }),
    )
    const output = space.path('out')
    const folder = `${output}/checkpoints`
    const names = (): string[] => (existsSync(folder) ? readdirSync(folder) : [])
    const { done, child } = space.start(['train', file, '--nproc', '2', '--output', output, '--quiet'])
    while (!names().includes('latest') && child.exitCode === null) await sleep(5)
    const ranks = processesOf(file).map((pid) => ({ pid, rank: rankOf(pid) }))
    // A temporary folder: a save is under way.
    while (!names().some((name) => name.startsWith('tmp-step')) && child.exitCode === null) await sleep(1)
    for (const { pid, rank } of ranks) if ((victims as readonly unknown[]).includes(rank)) process.kill(pid, 'SIGKILL')
    const started = Date.now()
    const { status, stderr } = await done
    t.ok(Date.now() - started < 20_000, 'within seconds')
    t.not(status, 0)
    if (victims.length === 1) {
      t.match(stderr, new RegExp(`rank ${victims[0]} was killed by SIGKILL`), 'the launcher names it')
      t.match(stderr, new RegExp(`rank ${victims[0]} .*(died|ended)`), 'the other names it')
      t.notMatch(stderr, /unexpected error|^ +at /m, 'coded, no stack')
    }
    for (let i = 0; i < 200 && processesOf(file).length; i++) await sleep(50)
    t.strictSame(processesOf(file), [], 'no process is left')
    t.strictSame(sharedMemory(), before, 'nothing in /dev/shm')

    const saved = Number(/\d+/.exec(readFileSync(`${folder}/latest`, 'utf8'))?.[0])
    const verify = await space.start(['inspect', output, '--verify']).done
    t.equal(verify.status, 0, verify.stderr)
    const rest = await space.start([
      'train',
      file,
      '--output',
      output,
      '--resume',
      '--steps',
      `${saved + 2}`,
      '--set',
      'train.save_interval=0',
    ]).done
    t.equal(rest.status, 0, rest.stderr)
    t.match(rest.stderr, /resumed at step \d+/)
    t.strictSame(
      names().filter((name) => name.startsWith('tmp')),
      [],
      'nothing half-written is left',
    )
  })
}

for (const victim of [1, 0]) {
  t.test(`rank ${victim} hangs: the other names it, the launcher ends it`, async (t) => {
    const space = new Workspace(t)
    const file = space.write('hang.json', space.config({ train: { steps: 1_000_000, seed: 1 } }))
    const args = ['train', file, '--nproc', '2', '--quiet', '--metrics', space.path('hang.jsonl')]
    const { done, child } = space.start(args, { ZEROSHARD_TIMEOUT: '10' })
    while (space.steps('hang.jsonl').length < 3 && child.exitCode === null) await sleep(20)
    process.kill(processesOf(file).find((pid) => rankOf(pid) === victim) as number, 'SIGSTOP')
    const { status, stderr } = await done
    t.equal(status, 1, stderr)
    t.match(
      stderr,
      new RegExp(`rank ${1 - victim}: \\[\\w+\\] timed out after \\d.* s: rank ${victim} did not come to`),
    )
    t.strictSame(processesOf(file), [], 'no process is left')
  })
}
