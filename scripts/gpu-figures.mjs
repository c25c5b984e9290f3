// Figures of a device, each as a share of what the same run measures: copies first, then products and the kernels that
// live from bandwidth. Medians of repeats, each long enough to hide the launches.
//   node scripts/gpu-figures.mjs DEVICE OUT.json [--small]        (--small, and on the cpu: to try the script)
import { writeFileSync } from 'node:fs'
import { binding } from '../dist/binding/native.js'
import { ops } from '../dist/index.js'
import { tidy } from '../dist/tensor/scope.js'
import { runOp, tensor } from '../dist/tensor/tensor.js'

const [device = 'cuda', out = 'gpu-figures.json'] = process.argv.slice(2)
const { native } = binding()
const { devices, reason } = native.devices()
if (device === 'cuda' && devices.length === 0) {
  console.error(`no device: ${reason}`)
  process.exit(77)
}
native.configure({ threads: 0, serial: false, device })
const small = device === 'cpu' || process.argv.includes('--small')
const rows = []

/** Seconds of one call: the median of 5 repeats of as many as take about 50 ms. */
function time(body) {
  const run = (count) => {
    const start = performance.now()
    for (let i = 0; i < count; i++) tidy(body)
    native.synchronizeSync(-1)
    return (performance.now() - start) / 1e3
  }
  run(2)
  const count = Math.max(2, Math.min(1000, Math.ceil(0.05 / (run(2) / 2))))
  return Array.from({ length: 5 }, () => run(count) / count).sort((a, b) => a - b)[2]
}

function filled(shape, dtype = 'f32') {
  const x = tensor(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape, { dtype: 'f32' })
  runOp('random_fill', [x], [], [1, 0, 1, rows.length, 0, 0])
  if (dtype === 'f32') return x
  const y = ops.cast(x, dtype)
  x.dispose()
  return y
}

function row(name, seconds, { bytes = 0, flops = 0 }) {
  const gbs = bytes / seconds / 1e9
  const tflops = flops / seconds / 1e12
  rows.push({ name, microseconds: seconds * 1e6, gbs, tflops })
  const share = bytes && copy ? `, ${(gbs / copy).toFixed(2)} of copy` : ''
  const what = bytes ? `${gbs.toFixed(0)} GB/s${share}` : `${tflops.toFixed(1)} TFLOP/s`
  console.log(`${name.padEnd(44)} ${(seconds * 1e6).toFixed(1).padStart(12)} us  ${what}`)
}

let copy = 0
{
  const count = small ? 2 ** 20 : 2 ** 28
  const x = filled([count])
  const y = filled([count])
  row(
    `copy, ${count} f32`,
    time(() => runOp('copy_2d', [y], [x], [1, count, 0, count, 0, count])),
    { bytes: 8 * count },
  )
  copy = rows[0].gbs
  x.dispose()
  y.dispose()
}
for (const dtype of ['bf16', 'f32']) {
  const sizes = small
    ? [[256, 256, 256]]
    : [
        [8192, 8192, 8192],
        [16384, 2304, 768],
        [16384, 3072, 768],
        [16384, 768, 3072],
        [16384, 50304, 768],
      ]
  for (const [m, n, k] of sizes) {
    const a = filled([m, k], dtype)
    const b = filled([k, n], dtype)
    row(
      `matmul ${dtype} ${m} x ${n} x ${k}`,
      time(() => void ops.matmul(a, b)),
      { flops: 2 * m * n * k },
    )
    a.dispose()
    b.dispose()
  }
}
{
  const count = small ? 2 ** 20 : 124_475_904
  const [p, m, v, g] = [filled([count]), filled([count]), filled([count]), filled([count], 'bf16')]
  const half = filled([count], 'bf16')
  const scalars = [1e-4, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05, 1, 0, 1, 0]
  row(
    `adamw, ${count}`,
    time(() => runOp('adamw', [p, m, v, half, g], [undefined], scalars)),
    { bytes: 28 * count },
  )
  for (const x of [p, m, v, g, half]) x.dispose()
}
{
  const [r, c] = small ? [256, 512] : [16384, 4096]
  const x = filled([r, c], 'bf16')
  const weight = filled([c], 'bf16')
  row(
    `rms norm, ${r} x ${c} bf16`,
    time(() => void ops.rmsNorm(x, weight)),
    { bytes: 4 * r * c },
  )
  row(
    `gelu, ${r} x ${c} bf16`,
    time(() => void ops.gelu(x)),
    { bytes: 4 * r * c },
  )
  x.dispose()
  weight.dispose()
}
const what = devices.find(({ index }) => index === 0) ?? { name: 'cpu' }
writeFileSync(out, `${JSON.stringify({ device: what, date: new Date().toISOString(), rows }, null, 2)}\n`)
