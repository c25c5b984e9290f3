// Trains one model from one seed on one text on a device and on the CPU, and compares the loss curves: serial and streams bit
// for bit, f32 within 1e-3 relative of the CPU's at the median step, bf16 within 2e-2 (sums are in another order).
//   node scripts/gpu-train.mjs DEVICE FOLDER [--model tiny|small|gpt2] [--steps N] [--cpu-steps N] [--batch N]
// tiny (30 steps of a made-up text) is a step of gpu-check.sh. `--model gpt2 --steps 400 --cpu-steps 20` is GPT-2 124M with
// its own tokenizer on Moby Dick: minutes on a card, and as many steps on the CPU as one has patience for. Leaves
// curves.csv (a row a step) in the folder.
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { root } from './run.mjs'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: 'string', default: 'tiny' },
    steps: { type: 'string' },
    'cpu-steps': { type: 'string' },
    batch: { type: 'string' },
  },
})
const [device = 'cuda', folder = 'gpu-train'] = positionals
const models = {
  tiny: { n_layer: 2, n_head: 4, n_embd: 128, n_positions: 64, vocab_size: 256, batch: 8, steps: 30, lr: 1e-3 },
  small: { n_layer: 4, n_head: 4, n_embd: 128, n_positions: 128, vocab_size: 50257, batch: 4, steps: 40, lr: 1e-3 },
  gpt2: { n_layer: 12, n_head: 12, n_embd: 768, n_positions: 1024, vocab_size: 50257, batch: 4, steps: 400, lr: 6e-4 },
}
const chosen = models[values.model]
if (!chosen) {
  console.error(`--model is '${values.model}'; it must be one of ${Object.keys(models).join(', ')}`)
  process.exit(2)
}
const count = (name, fallback) => {
  const number = Number(values[name] ?? fallback)
  if (Number.isInteger(number) && number > 0) return number
  console.error(`--${name} is '${values[name]}'; it must be a number of at least 1`)
  process.exit(2)
}
const { batch, steps, lr, ...architecture } = chosen
const numSteps = count('steps', steps)
const cpuSteps = Math.min(count('cpu-steps', steps), numSteps)
const real = values.model !== 'tiny'

mkdirSync(folder, { recursive: true })
const text = real ? join(root, 'examples/quickstart/data/moby-dick.txt') : join(folder, 'text.txt')
if (real) spawnSync(process.execPath, ['scripts/quickstart-data.mjs'], { cwd: root, stdio: 'inherit' })
else {
  const line = (_, i) => `the whale and the captain of ship ${i * 7919} look at the sea.`
  writeFileSync(text, Array.from({ length: 3000 }, line).join('\n'))
}

/** Losses of a run: `more` of the configuration, `flags` of the command. */
function losses(name, more, ...flags) {
  const config = join(folder, `${name}.json`)
  const sequence = Math.min(architecture.n_positions, 256)
  writeFileSync(
    config,
    JSON.stringify({
      model: { config: { model_type: 'gpt2', ...architecture } },
      data: { train: [text], tokenizer: real ? 'gpt2' : 'byte', sequence_length: sequence },
      train: { steps: numSteps, seed: 3, save_interval: 0 },
      train_batch_size: count('batch', batch),
      optimizer: { type: 'AdamW', params: { lr, weight_decay: 0.1 } },
      zero_optimization: { stage: 1 },
      gradient_clipping: 1,
      ...more,
    }),
  )
  const metrics = join(folder, `${name}.jsonl`)
  const where = ['--nproc', '1', '--quiet', '--output', join(folder, name), '--metrics', metrics]
  const args = ['dist/cli/main.js', 'train', config, ...where, ...flags]
  const start = Date.now()
  const { status, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' })
  if (status !== 0) {
    console.error(`${name}: exit status ${status}\n${stderr}`)
    process.exit(/device cuda: /.test(stderr) ? 77 : 1)
  }
  const curve = readFileSync(metrics, 'utf8')
    .trim()
    .split('\n')
    .flatMap((line) => JSON.parse(line).loss ?? [])
  const seconds = ((Date.now() - start) / 1e3).toFixed(1)
  console.log(`${name.padEnd(8)} ${curve.length} steps in ${seconds} s, loss ${curve[0]} to ${curve.at(-1)}`)
  return curve
}

let right = true
/** How far a curve is from another, relative, over the steps that both have. */
function compare(name, curve, other, limit) {
  const away = other.slice(0, curve.length).map((loss, i) => Math.abs(curve[i] - loss) / loss)
  const sorted = away.sort((a, b) => a - b)
  const median = sorted[Math.floor(sorted.length / 2)]
  console.log(
    `${name}: over ${away.length} steps ${median.toExponential(1)} at the median (${limit} allowed), ${sorted.at(-1).toExponential(1)} at most`,
  )
  right &&= median < limit
}

const few = { train: { steps: cpuSteps, seed: 3, save_interval: 0 } }
const curves = { streams: losses('streams', {}, '--device', device) }
curves.serial = losses('serial', few, '--device', device, '--serial')
curves.bf16 = losses('bf16', { bf16: { enabled: true } }, '--device', device)
curves.cpu = losses('cpu', few, '--device', 'cpu')

const rows = curves.streams.map((_, i) => [i + 1, ...Object.values(curves).map((curve) => curve[i] ?? '')].join())
writeFileSync(join(folder, 'curves.csv'), `step,${Object.keys(curves)}\n${rows.join('\n')}\n`)
const same = curves.serial.every((loss, i) => loss === curves.streams[i])
console.log(`serial and streams: ${same ? 'the same bits' : 'DIFFERENT'}`)
compare('f32 and the CPU', curves.streams, curves.cpu, 1e-3)
compare('bf16 and f32', curves.bf16, curves.streams, 2e-2)
const [first, last] = [curves.streams[0], curves.streams.at(-1)]
if (curves.streams.length !== numSteps || curves.cpu.length !== cpuSteps || !(last < first)) right = false
process.exit(same && right ? 0 : 1)
