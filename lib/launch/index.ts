// Ranks as processes: who I am, how we meet, how local ranks are started.

export { type RankEnvironment, readEnvironment } from './env.js'
export { exitWithParent, type LocalOptions, type LocalOutcome, launchLocal } from './local.js'
export { type Rendezvous, rendezvous } from './rendezvous.js'
