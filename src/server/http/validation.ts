import { Ajv, type ErrorObject } from 'ajv';
import type { FastifyInstance, FastifySchemaCompiler } from 'fastify';
import { checkNames } from '../../utils/check.js';
import { RequestError } from '../errors.js';

/** What ajv says, in the library's words. */
function messageOf(where: string, errors: readonly ErrorObject[]): string {
  const [error] = errors;
  const place = [where, ...(error?.instancePath ?? '').split('/').filter(Boolean)].join('.');
  const { missingProperty, allowedValues } = (error?.params ?? {}) as {
    missingProperty?: string;
    allowedValues?: unknown[];
  };
  const more = allowedValues ? `: ${allowedValues.join(', ')}` : '';
  return missingProperty ? `${where}: '${missingProperty}' is missing` : `${place} ${error?.message}${more}`;
}

/** Names the nearest field for one that does not exist. */
function unknownField(where: string, errors: readonly ErrorObject[], schema: object): string | undefined {
  const extra = errors.find(({ keyword, instancePath }) => keyword === 'additionalProperties' && instancePath === '');
  if (!extra) {
    return undefined;
  }
  const known = Object.keys((schema as { properties?: object }).properties ?? {});
  try {
    checkNames(where, [(extra.params as { additionalProperty: string }).additionalProperty], known);
  } catch (error) {
    return (error as Error).message.replace('option', 'field');
  }
  return undefined;
}

function compilerOf(ajv: Ajv): FastifySchemaCompiler<object> {
  return ({ schema, httpPart = 'body' }) => {
    const validate = ajv.compile(schema);
    return (data) => {
      if (validate(data)) {
        return { value: data };
      }
      const errors = validate.errors ?? [];
      return { error: new RequestError(unknownField(httpPart, errors, schema) ?? messageOf(httpPart, errors)) };
    };
  };
}

const OPTIONS = { useDefaults: true, strict: false, allErrors: false } as const;

/** Our own routes take what their schemas say, nothing else. */
export function validateStrictly(app: FastifyInstance): void {
  app.setValidatorCompiler(compilerOf(new Ajv(OPTIONS)));
}

/** Routes of other programs take numbers that come as texts, as their originals do. */
export function validateLoosely(app: FastifyInstance): void {
  app.setValidatorCompiler(compilerOf(new Ajv({ ...OPTIONS, coerceTypes: true })));
}
