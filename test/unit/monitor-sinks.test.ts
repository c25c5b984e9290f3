// Event files read back by a reader of their own, and sinks on disks that fail.

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { ZeroshardError } from '../../lib/binding/errors.js'
import { type MonitorConfig, type MonitorEvent, makeMonitor } from '../../lib/monitor/monitor.js'
import { crc32c } from '../../lib/monitor/sinks/tensorboard.js'
import { type ReadEvent, readEventFile } from '../helpers/event-file.js'

function folderOf(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'zeroshard-sinks-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** Writes, and gives the errors that were told. */
function write(config: MonitorConfig, directory: string, batches: MonitorEvent[][], more: object = {}): string[] {
  const errors: ZeroshardError[] = []
  const monitor = makeMonitor(config, { rank: 0, directory, onError: (error) => errors.push(error), ...more })
  for (const events of batches) monitor.write(events)
  monitor.close()
  return errors.map((error) => `${error.code} ${error.message}`)
}

const loss = (value: number, step: number): MonitorEvent => ({ name: 'Train/Samples/train_loss', value, step })
const lr = (value: number, step: number): MonitorEvent => ({ name: 'Train/Samples/lr', value, step })

t.test('CRC-32C has the published values', async (t) => {
  t.equal(crc32c(Buffer.from('123456789')), 0xe3069283)
  t.equal(crc32c(Buffer.alloc(32)), 0x8a9136aa, 'RFC 3720, B.4: 32 zeroes')
  t.equal(crc32c(Buffer.alloc(32, 0xff)), 0x62a8ab43, '32 ones')
  t.equal(crc32c(Buffer.alloc(0)), 0)
})

t.test('a TensorBoard file gives back every value and step', async (t) => {
  const folder = folderOf(t)
  const batches = [
    [loss(2.5, 8), lr(0.001, 8)],
    [loss(-1e-20, 300), loss(Number.POSITIVE_INFINITY, 2 ** 40), loss(Number.NaN, 127)],
    [],
    [{ name: `längs ${'x'.repeat(200)}`, value: 1 / 3, step: 16384 }],
  ]
  t.strictSame(write({ tensorboard: { enabled: true, output_path: 'tb', job_name: 'run' } }, folder, batches), [])
  const [file, ...others] = readdirSync(join(folder, 'tb/run'))
  t.match(file, /^events\.out\.tfevents\.\d{10}\./)
  t.strictSame(others, [])
  const events = readEventFile(join(folder, 'tb/run', file as string))
  t.match(events[0], { version: 'brain.Event:2' })
  const read = events.slice(1).map(({ tag, value, step }) => ({ name: tag, value, step }))
  const written = batches.flat().map((event) => ({ ...event, value: Math.fround(event.value) }))
  t.strictSame(read, written)
  t.ok(events.every(({ time }) => Math.abs(time - Date.now() / 1000) < 60))
})

t.test('a resumed run tells TensorBoard where it goes on', async (t) => {
  const folder = folderOf(t)
  write({ tensorboard: { enabled: true, output_path: folder } }, folder, [[loss(1, 48)]], { resumedAt: 40 })
  const [file] = readdirSync(join(folder, 'DeepSpeedJobName'))
  const events = readEventFile(join(folder, 'DeepSpeedJobName', file as string))
  t.match(events[1], { step: 40, session: 1 } as Partial<ReadEvent>)
})

t.test("CSV: DeepSpeed's file for each metric, continued by a resumed run", async (t) => {
  const folder = folderOf(t)
  const config = { csv_monitor: { enabled: true, output_path: 'csv', job_name: 'job' } }
  write(config, folder, [[loss(2.5, 8), lr(0.001, 8)], [loss(2.25, 16)]])
  write(config, folder, [[loss(2, 24)]])
  const text = (name: string): string => readFileSync(join(folder, 'csv/job', name), 'utf8')
  t.strictSame(readdirSync(join(folder, 'csv/job')).sort(), ['Train_Samples_lr.csv', 'Train_Samples_train_loss.csv'])
  t.equal(text('Train_Samples_train_loss.csv'), 'step,train_loss\n8,2.5\n16,2.25\n24,2\n')
  t.equal(text('Train_Samples_lr.csv'), 'step,lr\n8,0.001\n')
})

t.test('JSON lines: the events of a step in one object, continued by a resumed run', async (t) => {
  const folder = folderOf(t)
  const config = { jsonl_monitor: { enabled: true, output_path: 'json', job_name: 'my job' } }
  write(config, folder, [[loss(2.5, 8), lr(0.001, 8)], [loss(Number.NaN, 16)]])
  write(config, folder, [[loss(Number.NEGATIVE_INFINITY, 24), loss(2, 32)]])
  t.strictSame(readdirSync(join(folder, 'json')), ['my_job.jsonl'])
  const lines = readFileSync(join(folder, 'json/my_job.jsonl'), 'utf8').trimEnd().split('\n')
  t.strictSame(
    lines.map((line) => JSON.parse(line) as unknown),
    [
      { step: 8, 'Train/Samples/train_loss': 2.5, 'Train/Samples/lr': 0.001 },
      { step: 16, 'Train/Samples/train_loss': 'NaN' },
      { step: 24, 'Train/Samples/train_loss': '-Infinity' },
      { step: 32, 'Train/Samples/train_loss': 2 },
    ],
  )
})

t.test('Prometheus: the newest value of each metric', async (t) => {
  const folder = folderOf(t)
  const config = { prometheus: { enabled: true, output_path: folder, job_name: 'a "job"' } }
  write(config, folder, [[loss(2.5, 8)], [loss(2.25, 16), lr(Number.NaN, 16)]])
  t.equal(
    readFileSync(join(folder, 'a__job_.prom'), 'utf8'),
    [
      ['zeroshard_train_samples_train_loss', '2.25'],
      ['zeroshard_samples', '16'],
      ['zeroshard_train_samples_lr', 'NaN'],
    ]
      .map(([name, value]) => `# TYPE ${name} gauge\n${name}{job="a \\"job\\""} ${value}\n`)
      .join(''),
  )
  t.strictSame(readdirSync(folder), ['a__job_.prom'])
})

t.test('a sink that fails is told once, as IO, and the others go on', async (t) => {
  const folder = folderOf(t)
  writeFileSync(join(folder, 'file'), '')
  const bad = write(
    {
      tensorboard: { enabled: true, output_path: 'file' },
      csv_monitor: { enabled: true, output_path: 'csv', job_name: 'job' },
    },
    folder,
    [[loss(1, 1)], [loss(2, 2)]],
  )
  t.equal(bad.length, 1)
  t.match(bad[0], /^IO \[monitor\] tensorboard: ENOTDIR/)
  t.match(readFileSync(join(folder, 'csv/job/Train_Samples_train_loss.csv'), 'utf8'), /1,1\n2,2\n$/)
  mkdirSync(join(folder, 'late/job/Train_Samples_lr.csv'), { recursive: true })
  const late = { csv_monitor: { enabled: true, output_path: 'late', job_name: 'job' } }
  const told = write(late, folder, [[loss(1, 1)], [lr(1, 1)], [lr(1, 2)], [loss(2, 2)]])
  t.equal(told.length, 1, 'a failing write')
  t.match(told[0], /^IO \[monitor\] csv_monitor: EISDIR/)
})

t.test('a full disk is told once', { skip: !readdirSync('/dev').includes('full') }, async (t) => {
  const folder = folderOf(t)
  mkdirSync(join(folder, 'job'))
  symlinkSync('/dev/full', join(folder, 'job/Train_Samples_lr.csv'))
  const config = { csv_monitor: { enabled: true, output_path: folder, job_name: 'job' } }
  const told = write(config, folder, [[lr(1, 1)], [lr(2, 2)]])
  t.equal(told.length, 1)
  t.match(told[0], /^IO \[monitor\] csv_monitor: ENOSPC/)
})

t.test('other ranks, and what is not enabled, write nothing', async (t) => {
  const folder = folderOf(t)
  write({ csv_monitor: { enabled: true }, tensorboard: { enabled: true } }, folder, [[loss(1, 1)]], { rank: 1 })
  write({ csv_monitor: { output_path: 'csv' }, tensorboard: { enabled: false } }, folder, [[loss(1, 1)]])
  t.strictSame(readdirSync(folder), [])
})
