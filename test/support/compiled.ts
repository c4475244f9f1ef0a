/** The program as JavaScript in a folder of its own: child processes start at once with it. */
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

const root = fileURLToPath(new URL('../../', import.meta.url))

/** Compiles `folders` of the project into `target`, without checking types. */
export function compileInto(target: string, folders: readonly string[]): void {
  cpSync(join(root, 'package.json'), join(target, 'package.json'))
  for (const folder of folders) {
    for (const name of readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })) {
      if (!name.endsWith('.ts')) continue
      const { outputText } = ts.transpileModule(readFileSync(join(root, folder, name), 'utf8'), {
        compilerOptions: {
          target: ts.ScriptTarget.ES2023,
          module: ts.ModuleKind.ESNext,
          verbatimModuleSyntax: true,
          rewriteRelativeImportExtensions: true,
        },
      })
      const to = join(target, folder, name.replace(/ts$/, 'js'))
      mkdirSync(dirname(to), { recursive: true })
      writeFileSync(to, outputText)
    }
  }
}
