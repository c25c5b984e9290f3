// Trains one small model from one seed on a device, on it serially, and on the CPU, and compares the loss curves: serial
// and streams bit for bit, the CPU within 1e-3 relative at the median step (f32; sums are in another order).
//   node scripts/gpu-train.mjs DEVICE FOLDER
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './run.mjs'

const [device = 'cuda', folder = 'gpu-train'] = process.argv.slice(2)
mkdirSync(folder, { recursive: true })
const lines = Array.from({ length: 3000 }, (_, i) => `the whale and the captain of ship ${i * 7919} look at the sea.`)
writeFileSync(join(folder, 'text.txt'), lines.join('\n'))
writeFileSync(
  join(folder, 'config.json'),
  JSON.stringify({
    model: { config: { model_type: 'gpt2', n_layer: 2, n_head: 4, n_embd: 128, n_positions: 64, vocab_size: 256 } },
    data: { train: ['text.txt'], tokenizer: 'byte', sequence_length: 64 },
    train: { steps: 30, seed: 3, output: 'out', save_interval: 0 },
    train_batch_size: 8,
    optimizer: { type: 'AdamW', params: { lr: 1e-3 } },
    zero_optimization: { stage: 1 },
    gradient_clipping: 1,
  }),
)

function losses(name, ...flags) {
  const metrics = join(folder, `${name}.jsonl`)
  const args = ['dist/cli/main.js', 'train', join(folder, 'config.json'), '--nproc', '1', '--quiet']
  const where = ['--output', join(folder, name), '--metrics', metrics]
  const { status, stderr } = spawnSync(process.execPath, [...args, ...where, ...flags], { cwd: root, encoding: 'utf8' })
  if (status !== 0) {
    console.error(`${name}: exit status ${status}\n${stderr}`)
    process.exit(/--device cuda: /.test(stderr) ? 77 : 1)
  }
  const records = readFileSync(metrics, 'utf8').trim().split('\n')
  return records.map((line) => JSON.parse(line)).flatMap(({ loss }) => (loss === undefined ? [] : [loss]))
}

const streams = losses('streams', '--device', device)
const serial = losses('serial', '--device', device, '--serial')
const cpu = losses('cpu', '--device', 'cpu')
const away = streams.map((loss, i) => Math.abs(loss - cpu[i]) / cpu[i]).sort((a, b) => a - b)
const median = away[Math.floor(away.length / 2)]
const same = streams.every((loss, i) => loss === serial[i])
console.log(`${streams.length} steps, loss ${streams[0]} to ${streams.at(-1)}`)
console.log(
  `serial and streams: ${same ? 'the same bits' : 'DIFFERENT'}; from the CPU: median ${median}, most ${away.at(-1)}`,
)
process.exit(same && median < 1e-3 && streams.length === 30 && streams.at(-1) < streams[0] ? 0 : 1)
