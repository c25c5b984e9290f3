// SIGINT and SIGTERM at any moment, to one process or to all: status 130, saved where training had begun, nobody left.

import { existsSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { processesOf, rankOf, Workspace } from '../helpers/program.js'

const endless = { train: { steps: 1_000_000, seed: 1 }, zero_optimization: { stage: 1 } }

/** A run of `ranks` that goes on until it is interrupted. */
function begin(space: Workspace, name: string, ranks: number, more: object = {}) {
  const file = space.write(`${name}.json`, space.config({ ...endless, ...more }))
  const metrics = `${name}.jsonl`
  const args = ['train', file, '--nproc', String(ranks), '--output', space.path(name), '--metrics', space.path(metrics)]
  const { child, done } = space.start(args)
  const training = async (steps = 3): Promise<void> => {
    while (space.steps(metrics).length < steps && child.exitCode === null) await sleep(20)
  }
  const rank = (index: number): number => processesOf(file).find((pid) => rankOf(pid) === index) as number
  return {
    child,
    done,
    training,
    rank,
    file,
    latest: space.path(`${name}/checkpoints/latest`),
    metrics: space.path(metrics),
  }
}

/** What is there is whole, and no process is left. */
async function endsWell(t: Test, space: Workspace, run: ReturnType<typeof begin>, began: boolean): Promise<void> {
  const { status, signal, stderr } = await run.done
  t.ok(status === 130 || (!began && signal === 'SIGINT'), `status ${status}, ${signal}: ${stderr}`)
  t.strictSame(processesOf(run.file), [], 'no process is left')
  if (began || existsSync(run.metrics)) t.ok(existsSync(run.latest), `saved, as training had begun: ${stderr}`)
  if (!existsSync(run.latest)) return
  const verify = await space.start(['inspect', run.latest.replace('/checkpoints/latest', ''), '--verify']).done
  t.equal(verify.status, 0, verify.stderr)
}

t.test('interrupted at any moment from the start, it ends with 130', async (t) => {
  const space = new Workspace(t)
  const started = Date.now()
  const measured = begin(space, 'measured', 2)
  await measured.training(1)
  const toFirstStep = Date.now() - started
  measured.child.kill('SIGINT')
  await endsWell(t, space, measured, true)
  for (const part of [0.1, 0.4, 0.6, 0.8, 0.95, 1.1]) {
    const run = begin(space, `after-${part}`, 2)
    await sleep(part * toFirstStep)
    run.child.kill('SIGINT')
    await endsWell(t, space, run, false)
  }
})

t.test('SIGTERM ends one process as SIGINT does, and a resumed run goes on from there', async (t) => {
  const space = new Workspace(t)
  const run = begin(space, 'one', 1)
  await run.training()
  run.child.kill('SIGTERM')
  await endsWell(t, space, run, true)
  const step = Number(/\d+/.exec(readFileSync(run.latest, 'utf8'))?.[0])
  const rest = await space.start([
    'train',
    run.file,
    '--output',
    space.path('one'),
    '--resume',
    '--steps',
    `${step + 2}`,
  ]).done
  t.equal(rest.status, 0, rest.stderr)
  t.match(rest.stderr, `resumed at step ${step}`)
})

t.test('a signal to all processes at once, and once more through the launcher, is one request', async (t) => {
  const space = new Workspace(t)
  for (const turn of [1, 2]) {
    const run = begin(space, `all-${turn}`, 2)
    await run.training()
    for (const pid of processesOf(run.file)) process.kill(pid, 'SIGTERM')
    await endsWell(t, space, run, true)
  }
})

t.test('a rank that hears of the request from another first takes its own signal as the first', async (t) => {
  const space = new Workspace(t)
  for (const wait of [0, 5, 20]) {
    const run = begin(space, `late-${wait}`, 2)
    await run.training()
    const [zero, one] = [run.rank(0), run.rank(1)]
    process.kill(zero, 'SIGINT')
    await sleep(wait)
    try {
      process.kill(one, 'SIGINT')
    } catch {} // it has ended already
    await endsWell(t, space, run, true)
  }
})

t.test('a second signal ends at once', async (t) => {
  const space = new Workspace(t)
  const run = begin(space, 'twice', 2, { train: { ...endless.train, eval_interval: 2, eval_batches: 10_000_000 } })
  await run.training(2)
  run.child.kill('SIGINT')
  await sleep(600)
  t.equal(run.child.exitCode, null, 'the step and its evaluation are not over')
  const asked = Date.now()
  run.child.kill('SIGINT')
  t.equal((await run.done).status, 130)
  t.ok(Date.now() - asked < 5000, 'at once')
  t.strictSame(processesOf(run.file), [])
})
