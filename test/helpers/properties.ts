// fast-check, with the same cases in every run; ZEROSHARD_TEST_SEED chooses others.

import fc from 'fast-check'

fc.configureGlobal({ seed: Number(process.env.ZEROSHARD_TEST_SEED ?? 1) })

export { fc }
