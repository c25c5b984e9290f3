// `zeroshard doctor`: what this machine and this build can do.

import { availableParallelism, cpus, totalmem } from 'node:os'
import { binding, type NativeDevices } from '../binding/native.js'
import { hardwareRows } from '../monitor/hardware.js'
import { megabytes } from './progress.js'

export function doctor(version: string): void {
  const { native } = binding()
  const rows: [string, string][] = [
    ['zeroshard', `${version}, Node ${process.version}, ${process.platform}-${process.arch}`],
    ['addon', `${native.version}, ${native.ops().length} operations`],
    ['cpu', `${cpus()[0]?.model ?? 'unknown'}, ${availableParallelism()} threads, kernels for ${native.simd}`],
    ['memory', megabytes(totalmem())],
    ...cudaRows(native.devices(true)),
    ...hardwareRows(native.hardware()),
  ]
  process.stdout.write(`${rows.map(([name, value]) => `${name.padEnd(10)} ${value}`).join('\n')}\n`)
}

/** The backend, what it lacks, its devices, and the libraries it opens at need. */
function cudaRows({ loaded, path, reason, devices, libraries, missingKernels }: NativeDevices): [string, string][] {
  if (!loaded) return [['cuda', `not loaded: ${reason}`]]
  const lacks = missingKernels.length > 0 ? `; lacks ${missingKernels.join(', ')}` : ''
  const rows: [string, string][] = [['cuda', `backend ${path}${lacks}`]]
  if (devices.length === 0) rows.push(['device', `none: ${reason}`])
  for (const d of devices) {
    const words = [
      `${d.name}, ${megabytes(d.totalBytes)}, compute capability ${d.capability.toFixed(1)}`,
      `${d.multiprocessors} multiprocessors, driver for CUDA ${d.driver}, runtime ${d.runtime}`,
    ]
    rows.push([`device ${d.index}`, words.join(', ')])
  }
  for (const { name, version, path: found, note } of libraries)
    rows.push([name, found ? `${version}, ${found}${note && `; ${note}`}` : `not found: ${note}`])
  return rows
}
