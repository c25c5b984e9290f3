// Saving and loading are streamed: the process does not grow by more than a bucket, however large a parameter is.

import t from 'tap'
import { Workspace } from '../helpers/program.js'

t.test('a checkpoint of 275 MiB is saved and loaded with less than 64 MiB of memory', async (t) => {
  const space = new Workspace(t)
  const outcome = await space.launch('checkpoint-memory.mjs', [space.folder], 1)
  t.equal(outcome.status, 0, outcome.stderr)
  const { bytes, save, load, background } = JSON.parse(outcome.stdout) as Record<
    'bytes' | 'save' | 'load' | 'background',
    number
  >
  t.comment(outcome.stdout)
  t.ok(bytes > 270, `${bytes} MiB of states`)
  t.ok(save > 0 && save < 64, `saving took ${save} MiB`)
  t.ok(load > 0 && load < 64, `loading took ${load} MiB`)
  t.ok(background < bytes + 64, `in the background: one copy of ${bytes} MiB, ${background} were taken`)
})
