// zeroshard/parallel: process groups and the flat layout of ZeRO.

export { ProcessGroup } from './group.js'
export { layoutUnits, piecesIn, type UnitLayout } from './zero/layout.js'
