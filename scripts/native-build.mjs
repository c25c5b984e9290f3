// Builds the addon with cmake-js (incrementally, in cmake-build/) and puts it into a folder, build/Release if none is given.
import { copyFileSync, mkdirSync, renameSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { root, run } from './run.mjs'

const folder = resolve(root, process.argv[2] ?? 'build/Release')
const { MAKEFLAGS, MFLAGS, MAKELEVEL, ...env } = process.env // make's own, where node-gyp called us
run(join(root, 'node_modules/.bin/cmake-js'), ['compile', '-O', 'cmake-build', '--log-level', 'error'], env)
mkdirSync(folder, { recursive: true })
// Renamed into place: a process that has the old one mapped keeps it.
copyFileSync(join(root, 'cmake-build/Release/zeroshard.node'), join(folder, 'zeroshard.node.new'))
renameSync(join(folder, 'zeroshard.node.new'), join(folder, 'zeroshard.node'))
