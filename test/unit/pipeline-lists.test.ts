// test/native/data/pipelines.txt is what the schedules make: the native tests run it on faked devices.

import { readFileSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { pipelineLists } from '../helpers/pipeline-lists.js'

const path = new URL('../native/data/pipelines.txt', import.meta.url)

t.test('the lists that the native tests run are those of the schedules', async (t) => {
  const lists = pipelineLists()
  if (process.env.TAP_SNAPSHOT) writeFileSync(path, lists) // TAP_SNAPSHOT=1 writes it anew
  t.equal(readFileSync(path, 'utf8'), lists)
})
