// Checkpoints: resumed is uninterrupted, on any number of ranks; killed ranks leave nothing broken behind.

import { existsSync, readdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { losses, processesOf, Workspace } from '../helpers/program.js'

t.test('a resumed run repeats the uninterrupted one, bit for bit on the same ranks', async (t) => {
  const space = new Workspace(t)
  const config = space.config({
    zero_optimization: { stage: 1 },
    scheduler: { type: 'WarmupCosineLR', params: { warmup_num_steps: 3, total_num_steps: 10 } },
  })
  const whole = await space.train(config, { ranks: 2, args: ['--steps', '10'] })
  t.equal(whole.status, 0, whole.stderr)
  const output = space.path('halves')
  t.equal((await space.train(config, { ranks: 2, output, args: ['--steps', '6'] })).status, 0)
  for (const ranks of [2, 4, 1]) {
    const from = `${output}/checkpoints/step-00000006`
    const rest = await space.train(config, { ranks, args: ['--steps', '10', '--resume', from] })
    t.equal(rest.status, 0, rest.stderr)
    const [actual, expected] = [losses(rest), losses(whole).slice(6)]
    if (ranks === 2) t.strictSame(actual, expected)
    else
      t.ok(
        actual.length === 4 && actual.every((loss, i) => Math.abs(loss - (expected[i] as number)) < 2e-4),
        `${ranks} ranks: ${actual}`,
      )
  }
})

t.test('a run that was resumed further back goes on from where it is, with its own seed', async (t) => {
  const space = new Workspace(t)
  const model = { model_type: 'gpt2', n_layer: 2, n_head: 2, n_embd: 32, n_positions: 16, vocab_size: 256 }
  const config = space.config({ model: { config: model }, train: { steps: 8, save_interval: 2, seed: 3 } })
  const output = space.path('out')
  const run = (...args: string[]) => space.train(config, { output, args })
  const whole = await run()
  t.equal(whole.status, 0, whole.stderr)
  t.equal((await run('--resume', `${output}/checkpoints/step-00000002`, '--steps', '4')).status, 0)
  const again = await run('--resume', 'auto', '--steps', '8', '--seed', '9')
  t.strictSame(
    again.steps.map(({ step }) => step),
    [5, 6, 7, 8],
    'not from step 8 of the run that was left',
  )
  t.strictSame(losses(again), losses(whole).slice(4), 'the order of data and the masks of dropout are those of seed 3')
})

t.test('a killed rank ends the others within seconds, and the launcher says which', async (t) => {
  const space = new Workspace(t)
  const file = space.write('long.json', space.config({ train: { steps: 1_000_000, seed: 1 } }))
  const { done } = space.start(['train', file, '--nproc', '2', '--metrics', space.path('long.jsonl')])
  while (space.steps('long.jsonl').length < 3) await sleep(50)
  const ranks = processesOf(file).filter((pid) => pid !== undefined)
  t.equal(ranks.length, 3, 'a launcher and two ranks')
  const started = Date.now()
  process.kill(Math.max(...ranks), 'SIGKILL')
  const outcome = await done
  t.equal(outcome.status, 1)
  t.match(outcome.stderr, /rank 1 was killed by SIGKILL/)
  t.ok(Date.now() - started < 10_000, 'within seconds')
  t.strictSame(processesOf(file), [], 'no process is left')
})

t.test('ranks do not outlive a killed launcher', async (t) => {
  const space = new Workspace(t)
  const file = space.write('long.json', space.config({ train: { steps: 1_000_000, seed: 1 } }))
  const { child, done } = space.start(['train', file, '--nproc', '2', '--metrics', space.path('long.jsonl')])
  while (space.steps('long.jsonl').length < 3) await sleep(50)
  child.kill('SIGKILL')
  await done
  for (let i = 0; i < 100 && processesOf(file).length; i++) await sleep(50)
  t.strictSame(processesOf(file), [])
})

/** Waits for what a run does, however fast the machine is. */
async function until(what: string, done: () => boolean): Promise<void> {
  const deadline = Date.now() + 60_000
  while (!done()) {
    if (Date.now() > deadline) throw new Error(`${what}: not within a minute`)
    await sleep(2)
  }
}

const names = (folder: string): string[] => (existsSync(folder) ? readdirSync(folder) : [])
const stepIn = (text: string): number => Number(/step +(\d+)/.exec(text)?.[1])

t.test('killed at any moment, also while saving, the newest checkpoint is whole', async (t) => {
  const space = new Workspace(t)
  const output = space.path('killed')
  const folder = `${output}/checkpoints`
  let last = 0
  for (const [index, [more, background, saving]] of (
    [
      [1, false, true],
      [3, true, true],
      [2, false, false],
    ] as const
  ).entries()) {
    const config = space.config({
      train: { steps: 1_000_000, save_interval: 1, keep_checkpoints: 2, seed: 1 },
      zero_optimization: { stage: 1 },
      checkpoint: { async_save: background },
    })
    const file = space.write(`killed-${index}.json`, config)
    const metrics = `killed-${index}.jsonl`
    const { done } = space.start([
      ...['train', file, '--nproc', '2', '--output', output, '--resume', 'auto', '--metrics', space.path(metrics)],
    ])
    await until(`${more} steps more`, () => space.steps(metrics).length > more)
    await until('a save', () => !saving || names(folder).some((name) => name.startsWith('tmp-step-')))
    for (const pid of processesOf(file)) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {}
    }
    await done
    const verify = await space.start(['inspect', output, '--verify']).done
    t.equal(verify.status, 0, verify.stderr)
    const step = stepIn(verify.stdout)
    t.ok(step > last, `step ${step} comes after ${last}`)
    last = step
    t.ok(names(folder).filter((name) => name.startsWith('step-')).length <= 3)
  }
  const config = space.config({ train: { steps: last + 3, seed: 1 }, zero_optimization: { stage: 1 } })
  const rest = await space.train(config, { ranks: 2, output, args: ['--resume', 'auto'] })
  t.equal(rest.status, 0, rest.stderr)
  t.equal(rest.steps.at(-1)?.step, last + 3)
  t.notOk(
    names(folder).some((name) => name.startsWith('tmp-')),
    'nothing of the killed saves is left',
  )
})

t.test('a signal ends the run with a checkpoint of the last step, after a save in the background', async (t) => {
  const space = new Workspace(t)
  for (const [signal, background] of [
    ['SIGINT', true],
    ['SIGTERM', false],
  ] as const) {
    const config = space.config({
      train: { steps: 1_000_000, save_interval: 1, keep_checkpoints: 2, seed: 1 },
      checkpoint: { async_save: background },
    })
    const file = space.write(`${signal}.json`, config)
    const metrics = `${signal}.jsonl`
    const output = space.path(signal)
    const args = ['--nproc', '2', '--output', output, '--metrics', space.path(metrics)]
    const { child, done } = space.start(['train', file, ...args])
    await until('some steps', () => space.steps(metrics).length > 2)
    child.kill(signal)
    const outcome = await done
    t.equal(outcome.status, 130)
    t.match(outcome.stderr, /interrupted: finishing the step and saving/)
    const verify = await space.start(['inspect', output, '--verify']).done
    t.equal(stepIn(verify.stdout), space.steps(metrics).at(-1)?.step, signal)
    t.notOk(names(`${output}/checkpoints`).some((found) => found.startsWith('tmp-')))
  }
})
