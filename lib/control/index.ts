export { controlCall } from './control-call.ts'
export { ControlServer } from './control-server.ts'
export { type Column, chooseFormat, formatTable, type TableFormat } from './table.ts'
