// `zeroshard launch`: a script on every rank; prefixes, environment, signals, the first failure, nothing left behind.

import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { nodeCommand } from '../helpers/node.js'
import { main, processesOf, rankOf, Workspace } from '../helpers/program.js'

const gone = async (text: string, limit = 5000): Promise<boolean> => {
  for (const end = Date.now() + limit; Date.now() < end; await sleep(20)) if (!processesOf(text).length) return true
  return false
}
const until = async (what: () => boolean, limit = 20_000): Promise<void> => {
  for (const end = Date.now() + limit; !what() && Date.now() < end; ) await sleep(20)
}

t.test("every rank has torchrun's environment; lines of all but rank 0 begin with their rank", async (t) => {
  const space = new Workspace(t)
  const script = space.write(
    'env.mjs',
    `const { RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT, ZEROSHARD_SECRET } = process.env
     console.log(JSON.stringify({ RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT, ZEROSHARD_SECRET, args: process.argv.slice(2) }))
     console.error('first\\nsecond')
     if (RANK !== '0') process.stdout.write('no end of line')`,
  )
  const words = ['--lr', '3', '-x', 'two words', '"quoted" \'both\'', '$HOME *', 'back\\slash', '', 'ümlaut\n']
  const { status, stdout, stderr } = await space.start(['launch', '--nproc', '3', script, ...words]).done
  t.equal(status, 0, stderr)
  const lines = stdout.split('\n')
  const ranks = lines.flatMap((line) => {
    const [, rank, json] = /^(?:\[rank (\d)\] )?(\{.*\})/.exec(line) ?? []
    return json ? [{ prefix: rank ?? '0', ...JSON.parse(json) }] : []
  })
  t.equal(ranks.length, 3, stdout)
  for (const rank of ranks) {
    t.equal(rank.RANK, rank.prefix)
    t.equal(rank.LOCAL_RANK, rank.RANK)
    t.match(rank, { WORLD_SIZE: '3', LOCAL_WORLD_SIZE: '3', MASTER_ADDR: '127.0.0.1' })
    t.strictSame(rank.args, words, 'arguments are as they were given')
    t.equal(rank.MASTER_PORT, ranks[0].MASTER_PORT, 'one port')
    t.equal(rank.ZEROSHARD_SECRET, ranks[0].ZEROSHARD_SECRET, 'one secret')
    t.ok(rank.ZEROSHARD_SECRET.length >= 32)
  }
  for (const rank of [1, 2]) {
    t.match(stderr, `[rank ${rank}] first\n`)
    t.match(stderr, `[rank ${rank}] second\n`)
    t.match(stdout, `[rank ${rank}] no end of line`)
  }
  t.match(stderr, /^(first|second)$/m, 'rank 0 has no prefix')
})

t.test('the first rank that fails gives the status, is named, with the end of what it said', async (t) => {
  const space = new Workspace(t)
  const script = space.write(
    'fail.mjs',
    `if (process.env.RANK === '1') {
       for (let i = 1; i <= 20; i++) console.error('line ' + i)
       process.exit(7)
     }
     process.on('SIGTERM', () => process.exit(9)) // later than rank 1
     setInterval(() => {}, 1000)`,
  )
  const started = Date.now()
  const { status, stderr } = await space.start(['launch', '--nproc', '3', script]).done
  t.equal(status, 7)
  t.match(stderr, /zeroshard: rank 1 failed first, with exit status 7\n {2}line 13\n(.*\n)+ {2}line 20\n$/)
  t.ok(Date.now() - started < 30_000, 'the others had five seconds')
  t.strictSame(processesOf(script), [])
})

t.test('a script that is not there', async (t) => {
  const space = new Workspace(t)
  const { status, stderr } = await space.start(['launch', '--nproc', '2', 'nowhere.mjs']).done
  t.equal(status, 1)
  t.match(stderr, /Cannot find module.*nowhere\.mjs/)
  t.match(stderr, /zeroshard: rank \d failed first/)
  for (const nproc of ['0', '-1', 'x']) {
    const wrong = await space.start(['launch', '--nproc', nproc, 'nowhere.mjs']).done
    t.equal(wrong.status, 2, wrong.stderr)
  }
})

t.test('signals are passed on once, to the ranks alone', async (t) => {
  const space = new Workspace(t)
  const script = space.write(
    'signals.mjs',
    `import { spawn } from 'node:child_process'
     import { appendFileSync } from 'node:fs'
     const helper = spawn('sleep', ['1000'])
     for (const signal of ['SIGINT', 'SIGTERM'])
       process.on(signal, () => {
         appendFileSync('got.txt', process.env.RANK + ' ' + signal + '\\n')
         if (signal === 'SIGTERM') setTimeout(() => { helper.kill(); process.exit(130) }, 300)
       })
     appendFileSync('ready.txt', process.env.RANK)
     setInterval(() => {}, 1000)`,
  )
  const { child, done } = space.start(['launch', '--nproc', '2', script])
  const ready = (): string => {
    try {
      return readFileSync(space.path('ready.txt'), 'utf8')
    } catch {
      return ''
    }
  }
  await until(() => ready().length === 2)
  child.kill('SIGINT')
  await sleep(300)
  child.kill('SIGTERM')
  const { status, stderr } = await done
  t.equal(status, 130, stderr)
  const got = readFileSync(space.path('got.txt'), 'utf8').trim().split('\n').sort()
  t.strictSame(got, ['0 SIGINT', '0 SIGTERM', '1 SIGINT', '1 SIGTERM'])
})

t.test('ranks that do not handle a signal die of it, and that is an interruption', async (t) => {
  const space = new Workspace(t)
  const script = space.write('plain.mjs', `console.log('up'); setInterval(() => {}, 1000)`)
  const { child, done } = space.start(['launch', '--nproc', '2', script])
  await until(() => processesOf(script).filter((pid) => rankOf(pid) !== undefined).length === 2)
  child.kill('SIGTERM')
  const { status, stderr } = await done
  t.equal(status, 130, stderr)
  t.notMatch(stderr, /failed|killed/)
  t.ok(await gone(script))
})

t.test('a rank that hangs and hears no signal ends with the third, or 10 s after the second', async (t) => {
  for (const signals of [3, 2]) {
    const space = new Workspace(t)
    const script = space.write(
      'hangs.mjs',
      `import { appendFileSync } from 'node:fs'
       process.on('SIGINT', () => {})
       appendFileSync('ready.txt', process.env.RANK)
       if (process.env.RANK === '1') for (;;);
       process.on('SIGINT', () => process.exit(130))
       setInterval(() => {}, 1000)`,
    )
    const { child, done } = space.start(['launch', '--nproc', '2', script])
    await until(() => existsSync(space.path('ready.txt')) && readFileSync(space.path('ready.txt')).length === 2)
    await sleep(300)
    for (let signal = 0; signal < signals; signal++) {
      child.kill('SIGINT')
      await sleep(300)
    }
    const { status, stderr } = await done
    t.equal(status, 130, stderr)
    t.ok(await gone(script))
  }
})

t.test('what a stubborn rank started ends with it; what the launcher did not start goes on', async (t) => {
  const space = new Workspace(t)
  const script = space.write(
    'stubborn.mjs',
    `import { spawn } from 'node:child_process'
     if (process.env.RANK === '1') setTimeout(() => process.exit(3), 500)
     else {
       process.on('SIGTERM', () => {})
       spawn('sleep', ['1000'], { argv0: 'helper-of-${space.folder}' })
       setInterval(() => {}, 1000)
     }`,
  )
  // A shell's job: the launcher and a stranger in one process group.
  const shell = spawn(
    'sh',
    [
      '-c',
      `sleep 1000 & stranger=$!
       ${nodeCommand.join(' ')} "${main}" launch --nproc 2 "${script}"; echo "status $?"
       kill $stranger && echo alive`,
    ],
    { detached: true, cwd: space.folder },
  )
  let output = ''
  shell.stdout.on('data', (chunk) => (output += chunk))
  const started = Date.now()
  await new Promise((done) => shell.on('close', done))
  t.match(output, /status 3\nalive/)
  t.ok(Date.now() - started > 9000, 'it had ten seconds')
  t.ok(await gone(`helper-of-${space.folder}`), 'no helper is left')
  t.ok(await gone(script))
})

t.test('a rank that leaves a process behind, which holds its output, keeps nobody waiting', async (t) => {
  const space = new Workspace(t)
  const script = space.write(
    'left.mjs',
    `import { spawn } from 'node:child_process'
     const left = spawn('sleep', ['90'], { stdio: 'inherit', detached: true })
     left.unref()
     console.log('done', left.pid)`,
  )
  const started = Date.now()
  const { child } = space.start(['launch', '--nproc', '2', script])
  let output = ''
  child.stdout?.on('data', (chunk) => (output += chunk))
  const status = await new Promise((done) => child.on('exit', done))
  t.equal(status, 0)
  t.ok(Date.now() - started < 60_000)
  for (const [, pid] of output.matchAll(/done (\d+)/g)) process.kill(Number(pid))
})

t.test('a launcher that is killed while its ranks start leaves none of them', async (t) => {
  const space = new Workspace(t)
  for (const wait of [0, 30, 100, 250, 500]) {
    const file = space.write(`start-${wait}.json`, space.config({ train: { steps: 1_000_000, seed: 1 } }))
    const { child } = space.start(['train', file, '--nproc', '2', '--quiet', '--output', space.path(`out-${wait}`)])
    await until(() => processesOf(file).length > 1)
    await sleep(wait)
    child.kill('SIGKILL')
    t.ok(await gone(file, 20_000), `${wait} ms after the first rank: ${processesOf(file)}`)
  }
})
