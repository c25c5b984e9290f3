// Why a compute stream stood still: against counting on a grid, and single cases by hand.

import t from 'tap'
import { breakdown } from '../../lib/monitor/breakdown.js'
import { idleOf } from '../../lib/monitor/idle.js'
import { fc } from '../helpers/properties.js'
import { recordsOf, type TaskRow } from '../helpers/trace.js'

t.test('no tasks: nothing', async (t) => {
  const nothing = { total: 0, busy: 0, javascript: 0, others: 0, runAhead: 0 }
  t.strictSame(idleOf(recordsOf([])), nothing)
  t.strictSame(idleOf(recordsOf([{ kind: 'allReduce', start: 3, end: 9 }])), nothing, 'other streams do not count')
})

t.test('a gap is JavaScript’s until the next task is queued, then the others’', async (t) => {
  const rows: TaskRow[] = [
    { start: 100, end: 200, queued: 10 },
    { start: 260, end: 300, queued: 240 }, // 40 for JavaScript, 20 for others
    { start: 320, end: 400, queued: 250 }, // 20 for others
    { start: 400, end: 410, queued: 255 },
    { start: 500, end: 510, queued: 500 }, // 90 for JavaScript
  ]
  const idle = idleOf(recordsOf(rows.reverse()))
  t.strictSame(idle, { total: 410, busy: 240, javascript: 130, others: 40, runAhead: 145 })
  const milliseconds = breakdown(recordsOf(rows), [], [])
  t.match(milliseconds, { idle_javascript: 130e-6, idle_others: 40e-6, run_ahead: 145e-6 })
})

t.test('busy, JavaScript’s and the others’ part are those of a grid that is counted cell by cell', async () => {
  const tasks = fc.array(
    fc.record({ gap: fc.nat({ max: 5 }), length: fc.nat({ max: 5 }), before: fc.nat({ max: 9 }) }),
    {
      minLength: 1,
      maxLength: 20,
    },
  )
  fc.assert(
    fc.property(tasks, (list) => {
      let at = 0
      const cells: ('busy' | 'javascript' | 'others')[] = []
      const rows = list.map(({ gap, length, before }, i): TaskRow => {
        const start = at + (i === 0 ? 0 : gap)
        const queued = start - before
        for (let cell = at; cell < start; cell++) cells.push(cell < queued ? 'javascript' : 'others')
        for (let cell = 0; cell < length; cell++) cells.push('busy')
        at = start + length
        return { start, end: at, queued }
      })
      const { total, busy, javascript, others } = idleOf(recordsOf(rows))
      const count = (what: string): number => cells.filter((cell) => cell === what).length
      return (
        total === cells.length &&
        busy === count('busy') &&
        javascript === count('javascript') &&
        others === count('others')
      )
    }),
    { numRuns: 300 },
  )
})
