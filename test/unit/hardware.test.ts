// What is told of GPUs through NVML, on a stand-in for it: all readings, readings that fail, a library that is missing,
// broken, or has lost a GPU.

import t from 'tap'
import type { NativeHardware } from '../../lib/binding/native.js'
import { deviceState, gpuLine, hardwareRows } from '../../lib/monitor/hardware.js'
import { buildLibrary } from '../helpers/library.js'
import { runNode } from '../helpers/node.js'

const library = buildLibrary('nvml')

/** In a process of its own: the library is opened once. */
function hardware(env: NodeJS.ProcessEnv): NativeHardware {
  const script =
    "import('./lib/binding/native.ts').then(({ binding }) => console.log(JSON.stringify(binding().native.hardware())))"
  const { stdout, stderr } = runNode(['--import', 'tsx', '-e', script], {
    env: { ...process.env, ...env },
  })
  if (!stdout) throw new Error(stderr)
  return JSON.parse(stdout)
}

t.test('one line says what is missing where there is no library', async (t) => {
  const none = hardware({ ZEROSHARD_NVML: '/nowhere/libnvidia-ml.so.1' })
  t.strictSame(none.gpus, [])
  t.match(none.reason, /\/nowhere\/libnvidia-ml\.so\.1.*comes with the NVIDIA driver.*ZEROSHARD_NVML/)
  t.match(hardwareRows(none), [['nvml', /^no clocks, power and heat: /]])
})

t.test('a library that does not start says why', async (t) => {
  const broken = hardware({ ZEROSHARD_NVML: library, MOCK_NVML: 'broken' })
  t.equal(broken.reason, 'NVML does not start: Driver Not Loaded')
  t.strictSame(broken.gpus, [])
})

t.test('all readings of a GPU that tells them', async (t) => {
  const { gpus, ...told } = hardware({ ZEROSHARD_NVML: library })
  t.strictSame(told, { reason: '', path: library, version: '13.580.65.06', driver: '580.65.06', cuda: 13 })
  const [{ processes, ...first }] = gpus as [NativeHardware['gpus'][0]]
  t.strictSame(first, {
    index: 0,
    name: 'Mock H200',
    uuid: 'GPU-00112233-4455-6677-8899-aabbccddeeff',
    totalBytes: 150754820096,
    usedBytes: 754820096,
    smClock: 1755,
    memoryClock: 3201,
    maxSmClock: 1980,
    maxMemoryClock: 3201,
    power: 412.345,
    powerLimit: 700,
    energy: 9876543.21,
    temperature: 56,
    slowdownTemperature: 93,
    busy: 97,
    memoryBusy: 41,
    pcieGeneration: 4,
    pcieWidth: 8,
    maxPcieGeneration: 5,
    maxPcieWidth: 16,
    nvlinks: 17,
    nvlinkVersion: 4,
    throttle: ['power cap', 'hardware heat'],
    missing: [],
  })
  t.equal(processes?.length, 20)
  t.strictSame(processes?.[2], { pid: 1002, bytes: 3 << 20 })
  t.strictSame(processes?.[19], { pid: 1019 }, 'bytes that the driver does not know are absent')
})

t.test('a GPU that tells little: what is absent is named with the reason', async (t) => {
  const [, second] = hardware({ ZEROSHARD_NVML: library }).gpus as [unknown, NativeHardware['gpus'][0]]
  t.match(second, { name: 'Mock card of little words', totalBytes: 150754820096, nvlinks: 0 })
  t.notHas(second, 'power')
  t.notHas(second, 'processes')
  t.ok(second.missing.includes('power: Not Supported'))
  t.ok(second.missing.includes('processes: Insufficient Permissions'))
  t.match(gpuLine(second), /^Mock card of little words, 1 of 140 GiB used, not told: clocks: Not Supported;/)
})

t.test('a GPU that is lost keeps its place', async (t) => {
  const { gpus } = hardware({ ZEROSHARD_NVML: library, MOCK_NVML: 'lost' })
  t.equal(gpus.length, 2)
  t.strictSame(gpus[1]?.missing, ['GPU: GPU is lost'])
})

t.test('doctor prints a line for each GPU', async (t) => {
  const { stdout } = runNode(['--import', 'tsx', 'lib/cli/main.ts', 'doctor'], {
    env: { ...process.env, ZEROSHARD_NVML: library },
  })
  t.match(stdout, /^nvml +13\.580\.65\.06, driver 580\.65\.06 for CUDA 13, .*nvml\.so$/m)
  const line =
    'Mock H200, 1 of 140 GiB used, 1755 of 1980 MHz, memory 3201 of 3201 MHz, 412 of 700 W, 56 of 93 °C, ' +
    'PCIe 4 x8 (best: 5 x16), 17 NVLinks of version 4, slowed by: power cap, hardware heat, ' +
    'used by 1000 (1 MiB), 1001 (2 MiB), 1002 (3 MiB), 1003 (4 MiB) and 16 more'
  t.ok(stdout.includes(`gpu 0      ${line}\n`), stdout)
})

t.test('no state of a device that is not there', async (t) => {
  t.equal(deviceState(99), undefined)
})
