// Trains tiny GPT-2 and Llama models on every factorisation of 1, 2, 4, … ranks into pp x tp x cp x dp x ZeRO stage and
// compares each loss curve with one process's: `npm run matrix -- [--world 8] [--steps 20] [--out FILE] [--every N]`.
// The law (f32): 1e-6 relative at the median step, 1e-4 at every step. Exit status 1 where a layout breaks it.
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { root } from './run.mjs'

const { values } = parseArgs({
  options: {
    world: { type: 'string', default: '8' },
    steps: { type: 'string', default: '20' },
    every: { type: 'string', default: '1' },
    out: { type: 'string' },
  },
})
const [most, steps, every] = [values.world, values.steps, values.every].map(Number)

const models = {
  gpt2: { model_type: 'gpt2', n_layer: 8, n_head: 8, n_embd: 64, n_positions: 32, vocab_size: 256 },
  llama: {
    model_type: 'llama',
    num_hidden_layers: 8,
    num_attention_heads: 8,
    num_key_value_heads: 2,
    hidden_size: 64,
    intermediate_size: 96,
    max_position_embeddings: 32,
    vocab_size: 256,
  },
}
const quiet = { resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0 }

function* layouts(world) {
  for (let pp = 1; pp <= world; pp++)
    for (let tp = 1; pp * tp <= world; tp++)
      for (let cp = 1; pp * tp * cp <= world; cp++) {
        if (world % (pp * tp * cp)) continue
        const dp = world / (pp * tp * cp)
        const kinds = cp > 1 ? (cp * tp <= 8 ? ['ulysses', 'ring'] : ['ring']) : ['']
        for (const kind of kinds)
          for (const stage of dp * cp > 1 ? [0, 1, 2, 3] : [0]) yield { world, pp, tp, cp, kind, dp, stage }
      }
}

const space = mkdtempSync(join(tmpdir(), 'zeroshard-matrix-'))
const text = join(space, 'text.txt')
const words = ['whale', 'captain', 'lantern', 'river', 'engine', 'winter', 'harbour', 'letter']
writeFileSync(
  text,
  Array.from({ length: 2000 }, (_, i) => `the ${words[(i * 7) % 8]} and a ${words[(i * 3 + (i >> 3)) % 8]}.`).join(
    '\n',
  ),
)

let runs = 0
function train(model, layout) {
  const name = `run-${runs++}`
  const config = {
    model: { config: { ...models[model], ...(model === 'gpt2' ? quiet : {}) } },
    data: { train: [text], sequence_length: 32 },
    train: { steps, seed: 7 },
    train_batch_size: 8,
    train_micro_batch_size_per_gpu: 1,
    optimizer: { type: 'AdamW', params: { lr: 1e-3, betas: [0.9, 0.95], weight_decay: 0.1 } },
    gradient_clipping: 1,
    mesh: { pipeline: layout.pp, tensor: layout.tp, context: layout.cp },
    ...(layout.kind && { context_parallel: { type: layout.kind } }),
    zero_optimization: { stage: layout.stage, stage3_param_persistence_threshold: 0 },
  }
  const [file, metrics] = [join(space, `${name}.json`), join(space, `${name}.jsonl`)]
  writeFileSync(file, JSON.stringify(config))
  const args = ['train', file, '--nproc', String(layout.world), '--output', join(space, name), '--metrics', metrics]
  return new Promise((done, fail) => {
    const child = spawn(process.execPath, [join(root, 'dist/cli/main.js'), ...args, '--quiet'], {
      stdio: ['ignore', 2, 2],
    })
    child.once('exit', (status) => {
      rmSync(join(space, name), { recursive: true, force: true })
      if (status !== 0) return fail(new Error(`exit status ${status}`))
      const rows = readFileSync(metrics, 'utf8')
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line))
      done(rows.filter((row) => 'loss' in row).map((row) => row.loss))
    })
  })
}

const rows = []
const started = Date.now()
for (const model of Object.keys(models)) {
  const alone = await train(model, { world: 1, pp: 1, tp: 1, cp: 1, kind: '', dp: 1, stage: 0 })
  let index = 0
  for (let world = 1; world <= most; world *= 2) {
    for (const layout of layouts(world)) {
      if (index++ % every) continue
      const row = { model, ...layout, median: Number.NaN, worst: Number.NaN, law: false, error: '' }
      try {
        const losses = await train(model, layout)
        const gaps = losses.map((loss, step) => Math.abs(loss - alone[step]) / alone[step])
        row.worst = Math.max(...gaps)
        row.median = gaps.toSorted((a, b) => a - b)[gaps.length >> 1]
        row.law = losses.length === steps && row.median <= 1e-6 && row.worst <= 1e-4
      } catch (error) {
        row.error = error.message
      }
      rows.push(row)
      const { pp, tp, cp, kind, dp, stage } = layout
      const name = `${model} pp${pp} tp${tp} cp${cp}${kind && ` ${kind}`} dp${dp} zero${stage}`
      console.log(
        `${row.law ? 'ok  ' : 'FAIL'} ${name}: median ${row.median.toExponential(1)}, worst ${row.worst.toExponential(1)} ${row.error}`,
      )
    }
  }
}
rmSync(space, { recursive: true, force: true })
const failed = rows.filter((row) => !row.law)
const seconds = Math.round((Date.now() - started) / 1000)
const summary = `${rows.length} layouts, ${rows.length - failed.length} within the law, in ${seconds} s`
console.log(summary)
if (values.out) {
  const lines = rows.map(
    ({ model, world, pp, tp, cp, kind, dp, stage, median, worst, law }) =>
      `| ${model} | ${world} | ${pp} | ${tp} | ${cp} ${kind} | ${dp} | ${stage} | ${median.toExponential(1)} | ${worst.toExponential(1)} | ${law ? 'yes' : '**no**'} |`,
  )
  writeFileSync(
    values.out,
    `# Loss curves of every layout against one process\n\n\`npm run matrix -- --world ${most} --steps ${steps}${every > 1 ? ` --every ${every}` : ''}\`, ${new Date().toISOString().slice(0, 10)}, f32, ${steps} steps, batch 8: ${summary}.\nRelative difference of the losses at the median step and at the worst one.\n\n| model | ranks | pp | tp | cp | dp | stage | median | worst | within the law |\n|---|---|---|---|---|---|---|---|---|---|\n${lines.join('\n')}\n`,
  )
}
process.exit(failed.length ? 1 : 0)
