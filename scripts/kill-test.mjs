// kill -9 at any time: node scripts/kill-test.mjs [kills, default 20] [seed]. Two ranks train, saving in the foreground or
// in the background; a rank, the launcher or all of them are killed, at a random time or while a checkpoint is written.
// Each time the newest checkpoint must verify, hold all that was saved, and the resumed run must repeat the losses of
// an uninterrupted one, bit for bit. Needs a build.

import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const main = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url))
const [kills = 20, seed = 1] = process.argv.slice(2).map(Number)
const STEPS = 150
const INTERVAL = 4
const RANKS = 2
const folder = mkdtempSync(join(tmpdir(), 'zeroshard-kill-'))

let state = seed
/** Uniform in [0, 1): a linear congruential generator, so that a seed repeats the choices (not the timing). */
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return state / 2 ** 32
}
const pick = (list) => list[Math.floor(random() * list.length)]

const text = join(folder, 'text.txt')
const words = Array.from(
  { length: 20_000 },
  (_, i) => ['whale', 'river', 'lantern', 'winter', 'engine'][(i * i + (i >> 3)) % 5],
)
writeFileSync(text, words.join(' '))

/** A run of its own: the settings, the folder, what has been checked so far. */
function series(number) {
  const background = number % 2 === 1
  const stage = number % 4
  const file = join(folder, `config-${number}.json`)
  writeFileSync(
    file,
    JSON.stringify({
      model: { config: { model_type: 'gpt2', n_layer: 2, n_head: 2, n_embd: 64, n_positions: 16, vocab_size: 256 } },
      data: { train: [text] },
      train: { steps: STEPS, seed: 5, save_interval: INTERVAL, keep_checkpoints: 2 },
      train_batch_size: 8,
      optimizer: { type: 'AdamW', params: { lr: 3e-3 } },
      zero_optimization: { stage, stage3_param_persistence_threshold: 100 },
      checkpoint: { async_save: background },
    }),
  )
  return { file, output: join(folder, `out-${number}`), background, stage, newest: 0, lives: 0 }
}

function train(run, metrics) {
  const args = ['train', run.file, '--nproc', String(RANKS), '--output', run.output, '--resume', 'auto', '--quiet']
  const child = spawn(process.execPath, [main, ...args, '--metrics', metrics], { stdio: ['ignore', 'ignore', 'pipe'] })
  let stderr = ''
  child.stderr.on('data', (chunk) => (stderr += chunk))
  const ended = new Promise((done) => child.on('close', (status) => done({ status, stderr })))
  return { child, ended }
}

const rowsOf = (metrics) =>
  existsSync(metrics)
    ? readFileSync(metrics, 'utf8')
        .split('\n')
        .filter((line) => line.endsWith('}')) // the last may be torn
        .map((line) => JSON.parse(line))
        .filter((row) => 'loss' in row)
    : []

const names = (run) => {
  const checkpoints = join(run.output, 'checkpoints')
  return existsSync(checkpoints) ? readdirSync(checkpoints) : []
}
/** Saves under way; what a killed one has left is there until the next begins. */
const savesOf = (run) =>
  names(run)
    .filter((name) => name.startsWith('tmp-step-'))
    .map((name) => `${name} ${statSync(join(run.output, 'checkpoints', name), { throwIfNoEntry: false })?.ino}`)

/** The processes that a launcher has started, by rank. */
function ranksOf(launcher) {
  const found = []
  for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      const status = readFileSync(`/proc/${name}/status`, 'utf8')
      const rank = /(?:^|\0)RANK=(\d+)/.exec(readFileSync(`/proc/${name}/environ`, 'utf8'))
      if (rank && new RegExp(`^PPid:\\t${launcher}$`, 'm').test(status)) found[Number(rank[1])] = Number(name)
    } catch {} // ended meanwhile
  }
  return found
}

const killed = (pid) => {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {}
}

async function inspect(run) {
  const child = spawn(process.execPath, [main, 'inspect', run.output, '--verify'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk))
  const status = await new Promise((done) => child.on('close', done))
  return { status, output, step: Number(/step +(\d+)/.exec(output)?.[1]) }
}

function fail(run, message) {
  console.error(
    `FAILED, ${run.background ? 'background' : 'foreground'}, stage ${run.stage}: ${message}\nleft as it is: ${folder}`,
  )
  process.exit(1)
}

/** Every loss of a life is the uninterrupted run's, also of steps that are done once more. */
function checkRows(run, rows, curve) {
  for (const { step, loss } of rows)
    if (loss !== curve[step - 1]) fail(run, `step ${step} has the loss ${loss}, uninterrupted ${curve[step - 1]}`)
  return rows.length
}

/** All saves that had been waited for are there, and verify. */
async function checkNewest(run, lastRow) {
  const { status, output, step } = await inspect(run)
  // A save follows its step's row; in the background it is waited for by the one after.
  const due = Math.floor((lastRow - 1) / INTERVAL) * INTERVAL - (run.background ? INTERVAL : 0)
  const least = Math.max(run.newest, due)
  if (least <= 0 && !names(run).includes('latest')) return
  if (status !== 0) fail(run, `the newest checkpoint does not verify: ${output}`)
  if (step < least) fail(run, `the newest checkpoint is of step ${step}; ${least} had been saved`)
  run.newest = step
}

/** One life: → what was killed, or undefined where the run ended by itself first. */
async function life(run, longest) {
  const metrics = join(folder, `metrics-${run.lives++}.jsonl`)
  rmSync(metrics, { force: true })
  const left = savesOf(run)
  const isSaving = () => savesOf(run).some((save) => !left.includes(save))
  const { child, ended } = train(run, metrics)
  let over = false
  ended.then(() => (over = true))
  const whileSaving = random() < 0.5
  if (whileSaving) {
    const after = Math.floor(random() * 30)
    while (!over && !(rowsOf(metrics).length > after && isSaving())) await sleep(1)
    await sleep(random() * 10)
  } else await Promise.race([ended, sleep(random() * longest)])
  const ranks = ranksOf(child.pid)
  const victim = pick(['rank 0', 'rank 1', 'launcher', 'all'])
  const saving = isSaving()
  const alive = !over
  if (alive) {
    if (victim === 'all') for (const pid of [child.pid, ...ranks]) killed(pid)
    else killed(victim === 'launcher' ? child.pid : (ranks[Number(victim.at(-1))] ?? child.pid))
  }
  const { status, stderr } = await ended
  const deadline = Date.now() + 30_000
  while (ranks.some((pid) => pid && existsSync(`/proc/${pid}/exe`)) && Date.now() < deadline) await sleep(20)
  if (ranks.some((pid) => pid && existsSync(`/proc/${pid}/exe`))) fail(run, `a rank outlived the kill of ${victim}`)
  if (status !== 0 && !alive) fail(run, `ended by itself with ${status}: ${stderr}`)
  return { victim: alive ? victim : undefined, saving, rows: rowsOf(metrics) }
}

const reference = series(0)
const start = Date.now()
const whole = train(reference, join(folder, 'whole.jsonl'))
const outcome = await whole.ended
if (outcome.status !== 0) fail(reference, outcome.stderr)
const longest = Date.now() - start
const curve = rowsOf(join(folder, 'whole.jsonl')).map(({ loss }) => loss)
rmSync(reference.output, { recursive: true })
console.log(`${STEPS} steps, a checkpoint every ${INTERVAL}: ${(longest / 1000).toFixed(1)} s uninterrupted`)

const counts = {}
const count = (what) => (counts[what] = (counts[what] ?? 0) + 1)
let [done, steps, number, completed] = [0, 0, 0, 0]
let run = series(number)
while (done < kills || run.newest > 0) {
  const ending = done >= kills
  const { victim, saving, rows } = ending ? await finishRun(run) : await life(run, longest)
  steps += checkRows(run, rows, curve)
  await checkNewest(run, rows.at(-1)?.step ?? 0)
  if (victim) {
    done++
    count(victim)
    count(run.background ? 'in the background' : 'in the foreground')
    if (saving) count('during a save')
    console.log(
      `${done}: killed ${victim}${saving ? ' during a save' : ''} at step ${rows.at(-1)?.step ?? 'none'}, newest ${run.newest}`,
    )
    continue
  }
  if (run.newest !== STEPS) fail(run, `the run ended at step ${run.newest}`)
  completed++
  rmSync(run.output, { recursive: true })
  if (ending) break
  run = series(++number)
}

/** The last life, which nobody disturbs. */
async function finishRun(run) {
  const metrics = join(folder, 'last.jsonl')
  const { status, stderr } = await train(run, metrics).ended
  if (status !== 0) fail(run, `ended with ${status}: ${stderr}`)
  return { rows: rowsOf(metrics), saving: false }
}

rmSync(folder, { recursive: true })
console.log(
  `${done} kills (${Object.entries(counts)
    .map(([what, times]) => `${what} ${times}`)
    .join(', ')}): `,
)
console.log(
  `every newest checkpoint verified; ${steps} steps repeated the uninterrupted run's losses; ${completed} runs ended`,
)
