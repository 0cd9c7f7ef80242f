import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type Node, SyntaxKind } from 'typescript/unstable/ast';
import { API, type Checker, type Project, SymbolFlags, type Symbol as TypeSymbol } from 'typescript/unstable/sync';

const DIST = `${resolve('dist')}/`;
/** Members that a program of a user cannot name. */
const HIDDEN: readonly SyntaxKind[] = [SyntaxKind.PrivateKeyword, SyntaxKind.ProtectedKeyword];

const unaliased = (checker: Checker, symbol: TypeSymbol): TypeSymbol =>
  symbol.flags & SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;

/** The name of a type that `node` refers to, if it does. */
function referredName(node: Node): Node | undefined {
  switch (node.kind) {
    case SyntaxKind.TypeReference:
      return (node as Node & { typeName: Node }).typeName;
    case SyntaxKind.ExpressionWithTypeArguments:
      return (node as Node & { expression: Node }).expression;
    case SyntaxKind.ImportType:
      return (node as Node & { qualifier?: Node }).qualifier;
    default:
      return undefined;
  }
}

const modifiersOf = (node: Node): SyntaxKind[] =>
  ((node as Node & { modifiers?: readonly Node[] }).modifiers ?? []).map(({ kind }) => kind);

/** Declared in dist/, and no type parameter. */
const isOurs = ({ flags, declarations: [first] }: TypeSymbol): boolean =>
  !(flags & SymbolFlags.TypeParameter) && first !== undefined && first.path.startsWith(DIST);

/** The declarations of dist/ as a program sees them. */
export class PublicApi {
  private readonly api: API;
  private readonly project: Project;
  private readonly dir: string;

  /**
   * @param entries declarations of package.json's exports
   * @param programs sources by name, of programs that use them
   */
  constructor(entries: readonly string[], programs: Record<string, string> = {}) {
    this.dir = mkdtempSync(join('build', 'api-'));
    const files = entries.map((entry) => resolve(entry));
    for (const [name, source] of Object.entries(programs)) {
      files.push(resolve(this.dir, name));
      writeFileSync(join(this.dir, name), source);
    }
    const modules = { module: 'nodenext', moduleResolution: 'nodenext', target: 'es2022', lib: ['es2023', 'dom'] };
    const compilerOptions = { ...modules, strict: true, noEmit: true, skipLibCheck: true, types: ['node'] };
    const config = join(this.dir, 'tsconfig.json');
    writeFileSync(config, JSON.stringify({ compilerOptions, files }));
    this.api = new API({ cwd: process.cwd() });
    this.project = this.api.updateSnapshot({ openProjects: [resolve(config)] }).getProjects()[0]!;
  }

  close(): void {
    this.api.close();
    rmSync(this.dir, { recursive: true });
  }

  /** What an entry exports. */
  exportsOf(entry: string): readonly TypeSymbol[] {
    const { program, checker } = this.project;
    const module = checker.getSymbolAtLocation(program.getSourceFile(resolve(entry))!);
    return checker.getExportsOfModule(module!);
  }

  /** What an editor offers at the mark `|` of one of the programs. */
  completionsAt(name: string, source: string): string[] {
    const found = this.project.checker.getCompletionsAtPosition(resolve(this.dir, name), source.indexOf('|'));
    return (found?.entries ?? []).map((entry) => entry.name);
  }

  /** Types of this library that the exports' public declarations name, and that the entry does not export. */
  unexportedTypes(entry: string): string[] {
    const { checker } = this.project;
    const exported = this.exportsOf(entry).map((symbol) => unaliased(checker, symbol));
    const known = new Set(exported.map(({ id }) => id));
    const missing = new Set<string>();
    for (const symbol of exported) {
      for (const named of this.typesNamedBy(symbol)) {
        if (!known.has(named.id)) {
          missing.add(`${named.name}, of ${symbol.name}`);
        }
      }
    }
    return [...missing].sort();
  }

  /** Types of this library that a symbol's declarations name; helpers of a type's own file are looked into instead. */
  private typesNamedBy(symbol: TypeSymbol): TypeSymbol[] {
    const seen = new Set([symbol.id]);
    const open = [symbol];
    const named: TypeSymbol[] = [];
    for (const { declarations } of open) {
      const nodes = declarations.map((handle) => handle.resolve(this.project)!);
      for (const each of nodes.flatMap((node) => this.references(node)).filter(({ id }) => !seen.has(id))) {
        seen.add(each.id);
        (this.isHelper(each) ? open : named).push(each);
      }
    }
    return named;
  }

  private references(node: Node): TypeSymbol[] {
    if (modifiersOf(node).some((kind) => HIDDEN.includes(kind))) {
      return [];
    }
    const name = referredName(node);
    const symbol = name && this.project.checker.getSymbolAtLocation(name);
    const found = symbol ? [unaliased(this.project.checker, symbol)].filter(isOurs) : [];
    node.forEachChild((child) => {
      found.push(...this.references(child));
    });
    return found;
  }

  private isHelper({ declarations }: TypeSymbol): boolean {
    const declaration = declarations[0]!.resolve(this.project)!;
    const isExported = modifiersOf(declaration).includes(SyntaxKind.ExportKeyword);
    return declaration.kind === SyntaxKind.TypeAliasDeclaration && !isExported;
  }
}
