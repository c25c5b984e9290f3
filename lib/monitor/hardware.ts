// The GPUs of the machine in words and numbers, from NVML: for `zeroshard doctor`, reports and benchmarks.

import { binding, type NativeGpu, type NativeHardware } from '../binding/native.js'

/** 32 hexadecimal digits, from NVML's or CUDA's way to write it. */
const digits = (uuid: string): string => uuid.replace(/^GPU-/, '').replaceAll('-', '').toLowerCase()

/**
 * What NVML tells of a device now: memory, clocks, power, heat, links, processes. `index`: CUDA's, which may be another
 * than NVML's. Undefined where there is no such device, or no NVML.
 *
 * @example
 * monitor.deviceState(99) // undefined
 */
export function deviceState(index = 0): NativeGpu | undefined {
  const { native } = binding()
  const uuid = native.devices().devices.find((device) => device.index === index)?.uuid
  return uuid === undefined ? undefined : native.hardware().gpus.find((gpu) => digits(gpu.uuid) === digits(uuid))
}

/** "1755 of 1980 MHz": what there is of it. */
const share = (value: number | undefined, most: number | undefined, unit: string): string | undefined =>
  value === undefined ? undefined : `${Math.round(value)}${most === undefined ? '' : ` of ${Math.round(most)}`} ${unit}`
const gibibytes = (bytes: number | undefined): number | undefined => bytes && bytes / 2 ** 30

/** One line about a GPU. */
export function gpuLine(gpu: NativeGpu): string {
  const { pcieGeneration, pcieWidth, maxPcieGeneration, maxPcieWidth } = gpu
  const pcie = (generation?: number, width?: number): string => (generation ? `${generation} x${width}` : '')
  const now = pcie(pcieGeneration, pcieWidth)
  const best = pcie(maxPcieGeneration, maxPcieWidth)
  const held = gpu.processes?.map(({ pid, bytes }) => `${pid}${bytes ? ` (${Math.round(bytes / 2 ** 20)} MiB)` : ''}`)
  const parts = [
    gpu.name,
    share(gibibytes(gpu.usedBytes), gibibytes(gpu.totalBytes), 'GiB used'),
    share(gpu.smClock, gpu.maxSmClock, 'MHz'),
    gpu.memoryClock && `memory ${share(gpu.memoryClock, gpu.maxMemoryClock, 'MHz')}`,
    share(gpu.power, gpu.powerLimit, 'W'),
    gpu.temperature !== undefined && share(gpu.temperature, gpu.slowdownTemperature, '°C'),
    now && `PCIe ${now}${best && best !== now ? ` (best: ${best})` : ''}`,
    gpu.nvlinks > 0 && `${gpu.nvlinks} NVLinks of version ${gpu.nvlinkVersion}`,
    gpu.throttle?.length && `slowed by: ${gpu.throttle.join(', ')}`,
    held?.length && `used by ${held.slice(0, 4).join(', ')}${held.length > 4 ? ` and ${held.length - 4} more` : ''}`,
    gpu.missing.length > 0 && `not told: ${gpu.missing.join('; ')}`,
  ]
  return parts.filter(Boolean).join(', ')
}

/** Names and values for a table: NVML and each GPU; one line of what is missing where there is no NVML. */
export function hardwareRows({ reason, path, version, driver, cuda, gpus }: NativeHardware): [string, string][] {
  if (reason) return [['nvml', `no clocks, power and heat: ${reason}`]]
  const head = `${version}, driver ${driver} for CUDA ${cuda}, ${path}`
  return [['nvml', head], ...gpus.map((gpu): [string, string] => [`gpu ${gpu.index}`, gpuLine(gpu)])]
}
